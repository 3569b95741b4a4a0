//! Requests and limits of a container as whole numbers, for `resourceFieldRef`. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use meta::quantity::Quantity;

use super::EnvError;

/// The container of that name, init containers included.
pub fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|container| container.name == name)
}

/// The amount divided by the divisor and rounded up. A limit that is not set is the node's allocatable amount.
pub fn value(
    container: &Container,
    selector: &ResourceFieldSelector,
    allocatable: &BTreeMap<String, ApiQuantity>,
) -> Result<String, EnvError> {
    let unsupported = || EnvError::Resource(selector.resource.clone());
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known = matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    let resources = container.resources.as_ref();
    let amounts = match list {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    if !known {
        return Err(unsupported());
    }
    let set =
        amounts.and_then(|amounts| amounts.get(resource)).map(parse).transpose()?.filter(|amount| !amount.is_zero());
    let amount = match set {
        None if list == "limits" => allocatable.get(resource).map(parse).transpose()?,
        set => set,
    };
    let divisor = selector.divisor.as_ref().map(parse).transpose()?.filter(|divisor| !divisor.is_zero());
    // CPU counts in thousandths, so that a divisor of 1m is exact.
    let (amount, divisor) = if resource == "cpu" {
        (amount.map_or(0, |amount| amount.milli_value()), divisor.map_or(1000, |divisor| divisor.milli_value()))
    } else {
        (amount.map_or(0, |amount| amount.value()), divisor.map_or(1, |divisor| divisor.value()))
    };
    let divisor = i128::from(divisor.max(1));
    Ok(((i128::from(amount) + divisor - 1) / divisor).to_string())
}

fn parse(quantity: &ApiQuantity) -> Result<Quantity, EnvError> {
    Quantity::parse(&quantity.0).map_err(|_| EnvError::Quantity(quantity.0.clone()))
}
