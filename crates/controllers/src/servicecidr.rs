//! Protects ranges of service addresses while addresses are given out of them.
//! Reads: ServiceCIDR, IPAddress. Writes: ServiceCIDR finalizers and status. Invariant: a ServiceCIDR goes only when every
//! address in it lies in another that stays, and not before the API servers have stopped giving its addresses out.

use std::net::IpAddr;
use std::time::Duration;

use client::{Action, Informer, Key};
use futures::future::BoxFuture;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use meta::cidr::Cidr;
use serde_json::json;

use crate::context::{Ctx, During, Result, Work};
use crate::finalizer;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Kubernetes Service CIDR is ready";
const IN_USE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
/// Until every API server knows of the deletion.
const GRACE_S: i64 = 10;
/// Addresses are looked through while a range waits for them, and not held otherwise.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const PAGE: u32 = 500;

struct Controller {
    ctx: Ctx,
    ranges: Informer<ServiceCIDR>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let ranges = ctx.informers.of::<ServiceCIDR>();
    let mut work = Work::new(&ctx);
    work.watch_own(&ranges);
    let this = Controller { ctx, ranges };
    work.start(1, this, |this, key| Box::pin(this.reconcile(key)))
}

#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    AddFinalizer,
    Say(&'static str, &'static str, &'static str),
    Wait(u64),
    RemoveFinalizer,
}

/// `in_use`: an address needs this range; looked up for one that is being deleted only.
fn plan(range: &ServiceCIDR, in_use: bool, now: Timestamp) -> Step {
    let held = range.finalizers().iter().any(|f| f == FINALIZER);
    let conditions = range.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let ready = conditions.filter(|c| c.type_ == "Ready").map(|c| (c.status.as_str(), c.reason.as_str())).next();
    match &range.metadata.deletion_timestamp {
        None if !held => Step::AddFinalizer,
        None if ready.is_none_or(|(status, _)| status != "True") => Step::Say("True", "", READY),
        Some(_) if held && in_use && ready == Some(("False", "Terminating")) => Step::Wait(LOOK_EVERY.as_secs()),
        Some(_) if held && in_use => Step::Say("False", "Terminating", IN_USE),
        Some(at) if held => match GRACE_S - now.duration_since(at.0).as_secs() {
            left @ 1.. => Step::Wait(left.unsigned_abs().min(GRACE_S.unsigned_abs())),
            _ => Step::RemoveFinalizer,
        },
        _ => Step::Nothing,
    }
}

fn contains(range: &ServiceCIDR, ip: IpAddr) -> bool {
    let mut cidrs = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.any(|cidr| Cidr::parse(cidr).is_some_and(|network| network.contains(ip)))
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let Some(range) = self.ranges.get_key(key) else { return Ok(Action::Done) };
        let going = range.metadata.deletion_timestamp.is_some();
        let in_use = going && self.is_in_use(&range).await?;
        let api: Api<ServiceCIDR> = Api::all(self.ctx.client.clone());
        let now = Timestamp::now();
        match plan(&range, in_use, now) {
            Step::Nothing => Ok(Action::Done),
            Step::Wait(seconds) => Ok(Action::RequeueAfter(Duration::from_secs(seconds))),
            Step::Say(status, reason, message) => {
                let status = json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": reason,
                    "message": message, "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()}]}});
                let written = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(status)).await;
                written.unless_changed(|| format!("cannot update ServiceCIDR {}", key.name)).map(|_| Action::Done)
            }
            step @ (Step::AddFinalizer | Step::RemoveFinalizer) => {
                let held = step == Step::AddFinalizer;
                finalizer::set(&api, range.as_ref(), FINALIZER, held).await.map(|()| Action::Done)
            }
        }
    }

    /// Whether an address lies in this range and in no other that stays.
    async fn is_in_use(&self, range: &ServiceCIDR) -> Result<bool> {
        let mut staying = self.ranges.list();
        staying.retain(|r| r.metadata.deletion_timestamp.is_none());
        let needs = |ip: IpAddr| contains(range, ip) && !staying.iter().any(|r| contains(r, ip));
        let api: Api<IPAddress> = Api::all(self.ctx.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await.during(|| "cannot list IPAddresses".to_string())?;
            if page.items.iter().filter_map(|a| a.name_any().parse().ok()).any(needs) {
                return Ok(true);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn from_the_finalizer_to_its_removal() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let range = |held: bool, deleted: Option<&str>, ready: Option<(&str, &str)>| {
            let conditions: Vec<_> = ready
                .iter()
                .map(|(status, reason)| {
                    json!({"type": "Ready", "status": status, "reason": reason, "message": "", "lastTransitionTime": now.to_string()})
                })
                .collect();
            let mut range: ServiceCIDR = serde_json::from_value(json!({
                "metadata": {"finalizers": if held { vec![FINALIZER] } else { vec![] }},
                "spec": {"cidrs": ["10.0.0.0/24", "fd00::/64"]}, "status": {"conditions": conditions},
            }))
            .unwrap();
            range.metadata.deletion_timestamp = deleted.map(|at| Time(at.parse().unwrap()));
            range
        };
        let (just, long_ago) = (Some("2026-01-01T00:00:56Z"), Some("2026-01-01T00:00:50Z"));
        let (yes, no) = (Some(("True", "")), Some(("False", "Terminating")));
        for (range, in_use, want) in [
            (range(false, None, None), false, Step::AddFinalizer),
            (range(true, None, None), false, Step::Say("True", "", READY)),
            (range(true, None, no), false, Step::Say("True", "", READY)),
            (range(true, None, yes), false, Step::Nothing),
            (range(true, just, yes), true, Step::Say("False", "Terminating", IN_USE)),
            (range(true, just, no), true, Step::Wait(5)),
            (range(true, just, yes), false, Step::Wait(6)),
            (range(true, long_ago, no), false, Step::RemoveFinalizer),
            (range(false, long_ago, no), true, Step::Nothing),
        ] {
            assert_eq!(plan(&range, in_use, now), want);
        }
        let within = |ip: &str| contains(&range(true, None, None), ip.parse().unwrap());
        assert_eq!(["10.0.0.9", "10.0.1.9", "fd00::9", "fd01::9"].map(within), [true, false, true, false]);
    }
}
