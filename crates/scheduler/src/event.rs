//! What happened in the cluster that may make a waiting pod schedulable.
//! Made by the informer shell, judged by the plugins that rejected a pod. Invariant: carries the state after the change.

use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A node appeared or changed in something that matters here.
    Node(&'a NodeInfo),
    /// A pod was bound, or a bound pod's labels changed.
    PodAdded(&'a PodInfo),
    /// A bound pod went away, finished, or asks for less.
    PodRemoved(&'a PodInfo),
    /// Labels of a namespace changed.
    Namespace,
    /// A Service or a controller's selector changed.
    Selectors,
    /// A disruption budget changed.
    Budget,
}
