//! The four patches: a letter for the kind of patch, the live object, a zero byte, the patch. Merging twice is
//! as once, applying again changes nothing more, and force finds no conflict.

#![no_main]

use libfuzzer_sys::fuzz_target;
use meta::apply::{self, Writer};
use meta::{Value, patch};

const NOW: &str = "2026-01-01T00:00:00Z";

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let Some(split) = rest.iter().position(|byte| *byte == 0) else { return };
    let (Ok(mut live), Ok(mut wanted)) = (meta::parse(&rest[..split]), meta::parse(&rest[split + 1..])) else { return };
    let ty = api::resource::root_type("", "v1", "Pod").expect("pods are there");
    if ty.prune(&mut live).is_err() {
        return;
    }
    let mut changed = live.clone();
    match mode {
        b'j' => _ = patch::json_patch(&mut changed, &wanted),
        b'm' if patch::merge_patch(&mut changed, &wanted).is_ok() => {
            let once = changed.clone();
            patch::merge_patch(&mut changed, &wanted).expect("a second time");
            assert_eq!(changed, once);
        }
        b's' => _ = patch::strategic_merge(&mut changed, &wanted, ty),
        b'a' if wanted.as_object().is_some() && ty.prune(&mut wanted).is_ok() => {
            let now = NOW.parse().expect("a time");
            let writer = Writer { manager: "fuzz", api_version: "v1", subresource: "", now, other: None };
            let Ok(once) = apply::apply(ty, &live, &wanted, &writer, true) else { return };
            // What loses its last member goes with it, but for one that is applied empty: that is back the second time.
            let twice = apply::apply(ty, &once, &wanted, &writer, false).expect("one's own fields do not conflict");
            let thrice = apply::apply(ty, &twice, &wanted, &writer, false).expect("nor the third time");
            assert_eq!(thrice.to_string(), twice.to_string());
            changed = once.clone();
            changed.set(&["metadata", "labels"], Value::Null);
            apply::track_update(ty, &once, &mut changed, &Writer { manager: "other", ..writer });
        }
        _ => {}
    }
});
