//! Rollouts step by step: each plan is applied to the sets, as the API server and a prompt kubelet would. Pure.

use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2030-01-01T00:10:00Z".parse().unwrap()
}

fn deployment(replicas: i32, image: &str, strategy: serde_json::Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "web", "uid": "d", "generation": 1, "annotations": {"team": "a"}},
        "spec": {"replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1, "strategy": strategy,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}
    }))
    .unwrap()
}

fn rolling() -> serde_json::Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})
}

/// Cluster of one deployment: does what the plan says.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    log: String,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        World { deployment, sets: Vec::new(), log: String::new() }
    }

    fn set_image(&mut self, image: &str) {
        let spec = &mut self.deployment.spec;
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_string());
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|generation| generation + 1);
        self.log.push_str(&format!("-- image {image}\n"));
    }

    fn image(set: &ReplicaSet) -> String {
        let template = set.spec.template.as_ref().unwrap();
        template.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
    }

    /// One reconcile; pods of images that are not `broken` come up at once.
    fn step(&mut self) -> bool {
        let plan = plan(&self.deployment, &self.sets, |_| false, now());
        let mut changed = false;
        for step in plan.steps {
            changed = true;
            match step {
                Step::Create(set) => {
                    let mut set = *set;
                    set.metadata.uid = set.metadata.name.clone();
                    set.metadata.generation = Some(1);
                    let number = self.sets.len();
                    set.metadata.creation_timestamp =
                        Some(serde_json::from_value(json!(format!("2030-01-01T00:00:0{number}Z"))).unwrap());
                    self.log.push_str(&format!("create {} at {}\n", Self::image(&set), set.spec.replicas.unwrap()));
                    self.sets.push(Arc::new(set));
                }
                Step::Scale { set, from, to, annotations } => {
                    self.log.push_str(&format!("scale {} {from} -> {to}\n", Self::image(&set)));
                    self.change(&set, |set| {
                        set.spec.replicas = Some(to);
                        for (key, value) in annotations {
                            set.metadata.annotations.as_mut().unwrap().insert(key.to_string(), value);
                        }
                    });
                }
                Step::Refresh { set, annotations, .. } => {
                    self.log.push_str(&format!("annotate {}\n", Self::image(&set)));
                    self.change(&set, |set| set.metadata.annotations = annotations);
                }
                Step::Delete(set) => {
                    self.log.push_str(&format!("delete {}\n", Self::image(&set)));
                    self.sets.retain(|known| known.metadata.uid != set.metadata.uid);
                }
                Step::SetRevision(number) => {
                    self.log.push_str(&format!("revision {number}\n"));
                    self.deployment.metadata.annotations.as_mut().unwrap().insert(revision::REVISION.into(), number);
                }
            }
        }
        changed |= self.deployment.status.as_ref() != Some(&plan.status);
        self.deployment.status = Some(plan.status);
        for set in self.sets.clone() {
            let broken = Self::image(&set).contains("broken");
            self.change(&set, |set| {
                let replicas = set.spec.replicas.unwrap();
                let up = if broken { 0 } else { replicas };
                set.status = Some(ReplicaSetStatus {
                    replicas,
                    ready_replicas: Some(up),
                    available_replicas: Some(up),
                    observed_generation: Some(1),
                    ..ReplicaSetStatus::default()
                });
            });
        }
        changed
    }

    fn change(&mut self, set: &ReplicaSet, change: impl FnOnce(&mut ReplicaSet)) {
        let place = self.sets.iter_mut().find(|known| known.metadata.uid == set.metadata.uid).unwrap();
        change(Arc::make_mut(place));
    }

    fn settle(&mut self) {
        for _ in 0..30 {
            if !self.step() {
                break;
            }
        }
        let status = self.deployment.status.as_ref().unwrap();
        for condition in status.conditions.iter().flatten() {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            self.log.push_str(&format!(
                "{}={} {}: {}\n",
                text(&condition.type_),
                text(&condition.status),
                text(&condition.reason),
                text(&condition.message)
            ));
        }
    }
}

#[test]
fn rolling_update_broken_image_and_undo() {
    let mut world = World::new(deployment(3, "web:1", rolling()));
    world.settle();
    world.set_image("web:2");
    world.settle();
    world.set_image("broken");
    world.settle();
    world.set_image("web:2");
    world.settle();
    expect_test::expect_file!["tests/rolling_update_broken_image_and_undo.txt"].assert_eq(&world.log);
}

#[test]
fn recreate_and_resize() {
    let mut world = World::new(deployment(2, "web:1", json!({"type": "Recreate"})));
    world.settle();
    world.set_image("web:2");
    world.settle();
    world.deployment.spec.replicas = Some(5);
    world.log.push_str("-- replicas 5\n");
    world.settle();
    expect_test::expect_file!["tests/recreate_and_resize.txt"].assert_eq(&world.log);
}

#[test]
fn proportional_scaling_in_the_middle_of_a_rollout() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    let mut world = World::new(deployment(10, "web:1", strategy));
    world.settle();
    world.set_image("broken");
    world.settle();
    world.deployment.spec.replicas = Some(15);
    world.log.push_str("-- replicas 15\n");
    world.settle();
    world.deployment.spec.replicas = Some(5);
    world.log.push_str("-- replicas 5\n");
    world.settle();
    expect_test::expect_file!["tests/proportional_scaling_in_the_middle_of_a_rollout.txt"].assert_eq(&world.log);
}

#[test]
fn pause_and_deadline() {
    let mut world = World::new(deployment(2, "broken", rolling()));
    world.settle();
    world.deployment.spec.paused = Some(true);
    world.log.push_str("-- pause\n");
    world.set_image("web:2");
    world.settle();
    world.deployment.spec.paused = Some(false);
    world.log.push_str("-- resume\n");
    world.settle();
    let mut stuck = World::new(deployment(1, "broken", rolling()));
    stuck.settle();
    let later: Timestamp = "2030-01-01T00:20:01Z".parse().unwrap();
    let plan = plan(&stuck.deployment, &stuck.sets, |_| false, later);
    let progress = status::find(&plan.status, status::PROGRESSING).unwrap();
    world.log.push_str(&format!("stuck: {:?} {:?}\n", progress.reason, progress.message));
    expect_test::expect_file!["tests/pause_and_deadline.txt"].assert_eq(&world.log);
}
