//! What the server tells of itself.

use http::Method;

use super::Cluster;

#[tokio::test]
async fn health_and_metrics() {
    let cluster = Cluster::start().await;
    let text = async |path: &str| {
        let answer = cluster.raw(Method::GET, path, "", "").await;
        format!("{} {}", answer.code, answer.text)
    };
    let page = text("/readyz?verbose").await;
    assert!(page.starts_with("200 [+]ping ok\n[+]log ok\n[+]etcd ok\n"), "{page}");
    assert!(page.ends_with("[+]informer-sync ok\n[+]shutdown ok\nreadyz check passed\n"), "{page}");
    for (path, want) in [
        ("/livez", "200 ok"),
        ("/livez/ping", "200 ok"),
        ("/readyz/poststarthook/bootstrap-controller", "200 ok"),
        ("/livez/none", "404 404 page not found\n"),
    ] {
        assert_eq!(text(path).await, want);
    }
    cluster.server.shared.shutdown.cancel();
    let page = text("/readyz?exclude=etcd&exclude=x").await;
    assert!(page.contains("[+]etcd excluded: ok\n") && page.starts_with("500 "), "{page}");
    assert!(page.ends_with("[-]shutdown failed: reason withheld\nwarn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check failed\n"), "{page}");
    assert_eq!(text("/livez").await, "200 ok");
    assert_eq!(text("/readyz/shutdown").await, "500 internal server error: process is shutting down\n");
    let (metrics, slis) = (text("/metrics").await, text("/metrics/slis").await);
    for line in [
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"namespaces\"} 4",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"PodSecurity\",operation=\"CREATE\",rejected=\"false\",type=\"validate\"}",
        "apiserver_storage_objects{resource=\"priorityclasses.scheduling.k8s.io\"} 2",
        "etcd_requests_total{group=\"\",operation=\"create\",resource=\"namespaces\"} 4",
        "aggregator_unavailable_apiservice{name=\"v1.apps\"} 0",
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"}",
        "apiserver_request_sli_duration_seconds_count{component=\"apiserver\",group=\"\",resource=\"serviceaccounts\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1",
        "\nprocess_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    for line in [
        "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
        "kubernetes_healthcheck{name=\"shutdown\",type=\"readyz\"} 0",
        "kubernetes_healthchecks_total{name=\"shutdown\",status=\"error\",type=\"readyz\"} 2",
    ] {
        assert!(slis.contains(line), "{line} in {slis}");
    }
}
