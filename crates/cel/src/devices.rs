//! What the selectors of devices see: `device`. And how much they may cost.
//!
//! Source: the API documentation of `CELDeviceSelector`; the bounds are those of a ResourceSlice's devices. Pure.

use std::sync::LazyLock;

use meta::field::{Error, Path};

use crate::{Decl, Env, Expect, Program, Type};

/// The most that one selector may cost.
pub const BUDGET: u64 = 1_000_000;

/// Characters of a driver's name.
const DRIVER_MAX: u64 = 63;
/// Attributes and capacities of one device.
const ENTRIES_MAX: u64 = 32;
/// Characters of an attribute.
const TEXT_MAX: u64 = 64;

static ENVIRONMENT: LazyLock<Env> = LazyLock::new(|| {
    let sized = |ty: Type, size_max| Decl { size_max, ..Decl::from(ty) };
    // By domain, then by name.
    let grouped = |value: Decl| Decl::map(Decl::map(value, Some(ENTRIES_MAX)), Some(ENTRIES_MAX));
    let fields = [
        ("driver", sized(Type::String, DRIVER_MAX)),
        ("attributes", grouped(sized(Type::Any, TEXT_MAX))),
        ("capacity", grouped(Type::Opaque("kubernetes.Quantity").into())),
        ("allowMultipleAllocations", Type::Bool.into()),
    ];
    let device = Decl::object("kubernetes.DRADevice", fields.map(|(name, decl)| (name.to_string(), decl)));
    Env::new().variable("device", device).bind()
});

/// Compiles a selector's expression. The error is told of the field `at`.
pub fn compile(text: &str, at: &Path) -> Result<Program, Error> {
    let program = ENVIRONMENT.compile(text, Expect::Any).map_err(|why| why.told(text, at))?;
    let result = program.result_type();
    if !matches!(result, Type::Bool | Type::Any) {
        let why = format!("must evaluate to bool or the unknown type, not {result:#}");
        return Err(Error::invalid(at, text, why));
    }
    match program.estimate().max {
        0..=BUDGET => Ok(program),
        _ => Err(Error::forbidden(at, "too complex, exceeds cost limit")),
    }
}
