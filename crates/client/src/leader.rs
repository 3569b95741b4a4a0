//! Leader election by a Lease: of many candidates one leads, and its followers take over when it stops renewing.
//! Reads and writes: one coordination.k8s.io/v1 Lease. Invariant: `lead` runs only while this process holds the lease and
//! renewed it within `renew_deadline`, which is shorter than the time after which others may take it.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Error, is_already_exists, is_conflict};

/// Upstream's defaults: 15 s, 10 s, 2 s.
#[derive(Clone, Debug)]
pub struct Config {
    pub namespace: String,
    pub name: String,
    /// Unique among the candidates, as host name and a uuid.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl Config {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        Config {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// What we last saw of the lease, by our own clock: other machines' clocks are not trusted.
#[derive(Default)]
struct Observed {
    spec: Option<LeaseSpec>,
    at: Option<Instant>,
}

/// What to do about the lease as it is.
#[derive(Debug, PartialEq)]
enum Step {
    /// Somebody else holds it.
    Wait,
    /// Write this spec.
    Take(Box<LeaseSpec>),
}

fn plan(config: &Config, current: Option<&LeaseSpec>, seen_for: Duration, now: Timestamp) -> Step {
    let seconds = i32::try_from(config.lease_duration.as_secs()).unwrap_or(i32::MAX).max(1);
    let fresh = |transitions| LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: Some(seconds),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let Some(current) = current else { return Step::Take(Box::new(fresh(0))) };
    let holder = current.holder_identity.as_deref().unwrap_or_default();
    let transitions = current.lease_transitions.unwrap_or(0);
    if holder == config.identity {
        return Step::Take(Box::new(LeaseSpec { acquire_time: current.acquire_time.clone(), ..fresh(transitions) }));
    }
    let held_for = Duration::from_secs(u64::try_from(current.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
    if !holder.is_empty() && seen_for < held_for {
        return Step::Wait;
    }
    Step::Take(Box::new(fresh(transitions + 1)))
}

struct Candidate {
    config: Config,
    leases: Api<Lease>,
    observed: Observed,
}

impl Candidate {
    /// True if the lease is ours now.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let lease = self.leases.get_opt(&self.config.name).await?;
        let spec = lease.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        if self.observed.spec != spec || self.observed.at.is_none() {
            self.observed = Observed { spec: spec.clone(), at: Some(Instant::now()) };
        }
        let seen_for = self.observed.at.map(|at| at.elapsed()).unwrap_or_default();
        let Step::Take(spec) = plan(&self.config, spec.as_ref(), seen_for, Timestamp::now()) else {
            return Ok(false);
        };
        match self.write(lease, *spec).await {
            Err(error) if is_conflict(&error) || is_already_exists(&error) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    async fn write(&self, lease: Option<Lease>, spec: LeaseSpec) -> Result<(), kube::Error> {
        match lease {
            Some(mut lease) => {
                lease.spec = Some(spec);
                self.leases.replace(&self.config.name, &PostParams::default(), &lease).await?;
            }
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.config.name.clone()),
                    namespace: Some(self.config.namespace.clone()),
                    ..ObjectMeta::default()
                };
                self.leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) }).await?;
            }
        }
        Ok(())
    }

    /// Frees the lease, so that the next candidate need not wait.
    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.config.name).await? else { return Ok(()) };
        let Some(spec) = lease.spec.as_mut() else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(&self.config.identity) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        self.leases.replace(&self.config.name, &PostParams::default(), &lease).await?;
        Ok(())
    }

    /// Waits until we lead; false at shutdown.
    async fn acquire(&mut self, shutdown: &CancellationToken) -> bool {
        loop {
            match tokio::time::timeout(self.config.renew_deadline, self.attempt()).await {
                Ok(Ok(true)) => return true,
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(lease = self.config.name, %error, "cannot acquire the lease, will retry")
                }
                Err(_) => tracing::debug!(lease = self.config.name, "acquiring the lease timed out, will retry"),
            }
            let pause = self.config.retry_period.mul_f64(rand::random_range(1.0..1.2));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return false,
            }
        }
    }

    /// Renews until it fails for `renew_deadline`.
    async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let deadline = renewed + self.config.renew_deadline;
            match tokio::time::timeout_at(deadline, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                // somebody holds it: a conflict with our own write shows here too, so only the deadline decides
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(lease = self.config.name, %error, "cannot renew the lease, will retry")
                }
                Err(_) => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }
}

/// Stands as a candidate until `shutdown`; runs `lead` while leading, with a token that is cancelled when it must stop.
/// Returns an error if the lease was lost, so that the caller may exit and start afresh.
pub async fn run<F, Fut>(config: Config, client: Client, shutdown: CancellationToken, lead: F) -> Result<(), Error>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let leases = Api::namespaced(client, &config.namespace);
    let mut candidate = Candidate { config, leases, observed: Observed::default() };
    if !candidate.acquire(&shutdown).await {
        return Ok(());
    }
    tracing::info!(lease = candidate.config.name, identity = candidate.config.identity, "leading");
    let stop = shutdown.child_token();
    let mut leading = std::pin::pin!(lead(stop.clone()));
    let lost = tokio::select! {
        () = &mut leading => false,
        () = candidate.hold() => {
            stop.cancel();
            leading.await;
            true
        }
    };
    if lost && !shutdown.is_cancelled() {
        let after_s = candidate.config.renew_deadline.as_secs();
        return Err(Error::LeaseLost { lease: candidate.config.name, after_s });
    }
    if let Ok(Err(error)) = tokio::time::timeout(candidate.config.retry_period, candidate.release()).await {
        tracing::debug!(%error, "cannot release the lease; the next leader waits until it expires");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_only_when_free_ours_or_stale() {
        let config = Config::new("kube-system", "knarr", "me");
        let now: Timestamp = "2030-01-01T00:00:10Z".parse().unwrap();
        let held = |holder: &str| LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            acquire_time: Some(MicroTime("2030-01-01T00:00:00Z".parse().unwrap())),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        };
        let seconds = Duration::from_secs;
        let cases = [
            ("absent", None, 0, Some((0, true))),
            ("ours", Some(held("me")), 1, Some((3, false))),
            ("held", Some(held("other")), 14, None),
            ("stale", Some(held("other")), 15, Some((4, true))),
            ("released", Some(held("")), 0, Some((4, true))),
        ];
        for (name, spec, seen_s, want) in cases {
            let got = match plan(&config, spec.as_ref(), seconds(seen_s), now) {
                Step::Wait => None,
                Step::Take(spec) => {
                    assert_eq!(spec.holder_identity.as_deref(), Some("me"), "{name}");
                    assert_eq!(spec.renew_time, Some(MicroTime(now)), "{name}");
                    Some((spec.lease_transitions.unwrap(), spec.acquire_time == Some(MicroTime(now))))
                }
            };
            assert_eq!(got, want, "{name}");
        }
    }
}
