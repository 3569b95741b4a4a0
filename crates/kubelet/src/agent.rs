//! What all pod workers share: configuration, connections, and the node's facts.
//!
//! Holds no pod state; that is in [`crate::registry`]. Invariant: built once at start, never changed.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::Pod;

use crate::cgroups::Cgroups;
use crate::events::Events;
use crate::images::Images;
use crate::observed::{self, Instance, Observed};
use crate::plan::ProbeView;
use crate::pods::Allocatable;
use crate::probes::Probes;
use crate::registry::Registry;
use crate::resources::{self, NodeLimits};
use crate::spec::{self, Qos};
use crate::status_writer::StatusWriter;
use crate::turns::Turns;
use crate::volumes::Volumes;
use crate::{Config, env};

pub struct Agent {
    pub config: Config,
    pub client: kube::Client,
    pub cri: cri::Client,
    pub events: Events,
    pub volumes: Volumes,
    pub sources: env::Sources,
    pub images: Images,
    pub cgroups: Cgroups,
    pub limits: NodeLimits,
    pub allocatable: Allocatable,
    pub registry: Arc<Registry>,
    pub statuses: StatusWriter,
    pub probes: Probes,
    /// The runtime's name, once it has answered.
    pub runtime_name: Arc<OnceLock<String>>,
    /// Whose turn it is to make or stop a sandbox.
    pub turns: Turns,
}

impl Agent {
    /// The scheme of container ids.
    pub fn runtime(&self) -> &str {
        self.runtime_name.get().map_or("containerd", String::as_str)
    }

    pub fn probe_view(&self, id: &str) -> ProbeView {
        ProbeView {
            liveness: self.probes.liveness(id),
            readiness: self.probes.readiness(id),
            startup: self.probes.startup(id),
        }
    }

    /// Makes the pod's cgroup; the class of burstable pods is given what all of them request together.
    pub fn ensure_cgroups(&self, pod: &Pod) -> std::io::Result<()> {
        self.cgroups.ensure_pod(pod)?;
        let pods = self.registry.cells().into_iter().map(|cell| cell.pod());
        let burstable = pods.filter(|pod| spec::qos(pod) == Qos::Burstable && !spec::is_terminal(pod));
        let milli: i64 = burstable.map(|pod| resources::total(&pod, "cpu", spec::milli).request).sum();
        self.cgroups.set_burstable(milli)
    }

    pub async fn observe(&self, uid: &str, ended: &mut HashMap<String, Instance>) -> cri::Result<Arc<Observed>> {
        observed::observe(&self.cri, &self.config.owner, uid, ended).await.map(Arc::new)
    }
}
