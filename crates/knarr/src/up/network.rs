//! The pod network of this node: a bridge, by the standard CNI plugins.
//!
//! Waits for the node's pod range (`spec.podCIDR`, which the node IPAM controller assigns), then writes the CNI
//! configuration; the runtime sees the file and reports its network ready. Masquerading and host ports' rules: the
//! former is the proxy's, the latter the portmap plugin's.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use tokio_util::sync::CancellationToken;

use crate::layout::Layout;

const CONFIG_NAME: &str = "10-knarr.conflist";

/// Writes the configuration once the node `name` has its range; an unchanged file is left alone.
pub async fn configure(
    layout: &Layout,
    informers: &client::Informers,
    name: &str,
    shutdown: &CancellationToken,
) -> Result<()> {
    let nodes = informers.of::<Node>();
    let path = layout.cni_conf_dir().join(CONFIG_NAME);
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let pod_cidr = loop {
        if let Some(cidr) = nodes.get("", name).and_then(|n| n.spec.as_ref()?.pod_cidr.clone()) {
            break cidr;
        }
        tokio::select! {
            _ = shutdown.cancelled() => return Ok(()),
            _ = every.tick() => {}
        }
    };
    let config = render(layout, &pod_cidr);
    if fs::read_to_string(&path).is_ok_and(|text| text == config) {
        return Ok(());
    }
    fs::create_dir_all(layout.cni_conf_dir())?;
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, config)?;
    fs::rename(&temporary, &path)?;
    Ok(())
}

fn render(layout: &Layout, pod_cidr: &str) -> String {
    let config = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "knarr",
        "plugins": [
            {
                "type": "bridge",
                "bridge": layout.bridge(),
                "isGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.cni_state_dir(),
                    "ranges": [[{"subnet": pod_cidr}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{config:#}\n")
}
