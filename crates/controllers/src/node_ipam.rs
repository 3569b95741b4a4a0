//! Gives every node its pod ranges, cut from the cluster's.
//! Reads: Node. Writes: Node spec.podCIDR and podCIDRs, Event. Invariant: two nodes never get the same range, and a range once
//! given is never changed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use client::{Action, Informer, Key, Recorder};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meta::cidr::{Cidr, CidrError};
use serde_json::json;

use crate::config::Config;
use crate::context::{Ctx, During, Error, Result, Work};

/// An IP network that ranges of one size are cut from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    network: Cidr,
    node_mask: u8,
}

impl Pool {
    /// Parses `10.244.0.0/16`; the error says what is wrong with it.
    pub fn parse(text: &str, config: &Config) -> std::result::Result<Self, String> {
        let network: Cidr = text.parse().map_err(|error: CidrError| error.to_string())?;
        let (bits, mask) = (if network.is_v6() { 128 } else { 32 }, network.bits);
        let node_mask = if network.is_v6() { config.node_cidr_mask_ipv6 } else { config.node_cidr_mask_ipv4 };
        if node_mask > bits {
            return Err(format!("a mask is longer than {bits}"));
        }
        if node_mask < mask {
            return Err(format!("the nodes' mask /{node_mask} is shorter than its own /{mask}"));
        }
        Ok(Pool { network, node_mask })
    }

    /// How many ranges there are, held at 65536 as upstream does for IPv6.
    fn len(&self) -> u32 {
        1 << u32::from(self.node_mask - self.network.bits).min(16)
    }

    fn range(&self, index: u32) -> String {
        let bits = if self.network.is_v6() { 128 } else { 32 };
        let offset = u128::from(index).checked_shl(bits - u32::from(self.node_mask)).unwrap_or(0);
        format!("{}/{}", self.network.nth(offset), self.node_mask)
    }

    fn first_free(&self, used: &HashSet<String>) -> Option<String> {
        (0..self.len()).map(|index| self.range(index)).find(|range| !used.contains(range))
    }
}

struct Controller {
    ctx: Ctx,
    nodes: Informer<Node>,
    recorder: Recorder,
    pools: Vec<Pool>,
    /// Ranges given that the cache may not show yet.
    given: Mutex<HashSet<String>>,
}

pub fn start(ctx: Ctx) -> BoxFuture<'static, ()> {
    let pools: Vec<Pool> =
        ctx.config.cluster_cidrs.iter().filter_map(|cidr| Pool::parse(cidr, &ctx.config).ok()).collect();
    if pools.is_empty() {
        return Box::pin(std::future::ready(()));
    }
    let nodes = ctx.informers.of::<Node>();
    let mut work = Work::new(&ctx);
    work.watch_own(&nodes);
    let recorder = ctx.recorder("cidrAllocator");
    let this = Arc::new(Controller { ctx, nodes, recorder, pools, given: Mutex::default() });
    // one worker: the choice of a free range must not race with itself
    Box::pin(work.run(1, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    }))
}

fn ranges_of(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let mut ranges = spec.pod_cidrs.clone().unwrap_or_default();
    ranges.extend(spec.pod_cidr.clone().filter(|range| !ranges.contains(range)));
    ranges
}

/// One range of each pool; None if a pool is used up.
fn plan(pools: &[Pool], used: &HashSet<String>) -> Option<Vec<String>> {
    pools.iter().map(|pool| pool.first_free(used)).collect()
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> Result<Action> {
        let nodes = self.nodes.list();
        let shown: HashSet<String> = nodes.iter().flat_map(|node| ranges_of(node)).collect();
        let Some(node) = self.nodes.get_key(key) else { return Ok(Action::Done) };
        if !ranges_of(&node).is_empty() {
            self.given.lock().unwrap_or_else(PoisonError::into_inner).retain(|range| !shown.contains(range));
            return Ok(Action::Done);
        }
        let used = {
            let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            shown.union(&given).cloned().collect()
        };
        let Some(ranges) = plan(&self.pools, &used) else {
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.recorder.event(&client::reference(node.as_ref()), "Normal", "CIDRNotAvailable", message);
            return Err(Error::Other(format!("no pod range is left for node {key}; give a larger cluster CIDR")));
        };
        self.given.lock().unwrap_or_else(PoisonError::into_inner).extend(ranges.iter().cloned());
        // not by version: the server lets a range be set only where there is none
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": ranges.first(), "podCIDRs": ranges},
        });
        let api: Api<Node> = Api::all(self.ctx.client.clone());
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(Action::Done),
            Err(error) => {
                // an answer may be lost after the write: only a refusal frees the ranges again
                if matches!(error, kube::Error::Api(_)) {
                    self.given.lock().unwrap_or_else(PoisonError::into_inner).retain(|range| !ranges.contains(range));
                }
                Err(error).during(|| format!("cannot give node {key} its pod range"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_in_order_and_not_given_twice() {
        let config = Config { node_cidr_mask_ipv4: 24, ..Config::default() };
        let pools = [Pool::parse("10.244.7.9/22", &config).unwrap(), Pool::parse("fd00:1::/56", &config).unwrap()];
        let mut used = HashSet::new();
        let mut out = String::new();
        for _ in 0..5 {
            let ranges = plan(&pools, &used);
            out.push_str(&format!("{ranges:?}\n"));
            used.extend(ranges.into_iter().flatten());
        }
        expect_test::expect_file!["node_ipam/ranges_are_cut_in_order_and_not_given_twice.txt"].assert_eq(&out);
    }

    #[test]
    fn bad_networks_are_explained() {
        let config = Config::default();
        let errors: Vec<String> = ["10.0.0.0", "x/8", "10.0.0.0/40", "10.0.0.0/25"]
            .iter()
            .map(|cidr| Pool::parse(cidr, &config).unwrap_err())
            .collect();
        expect_test::expect![[r#"
            "10.0.0.0" is not an address range; write one such as 10.42.0.0/16
            "x/8" is not an address range; write one such as 10.42.0.0/16
            "10.0.0.0/40" is not an address range; write one such as 10.42.0.0/16
            the nodes' mask /24 is shorter than its own /25"#]]
        .assert_eq(&errors.join("\n"));
    }
}
