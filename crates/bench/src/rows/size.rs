//! The binary's size. Reads its metadata.

use anyhow::Result;

use crate::Settings;
use crate::report::Report;

pub fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let bytes = std::fs::metadata(&settings.knarr)?.len() as f64;
    report.add_noting("binary", bytes, "bytes", format!("{:.1} MiB", bytes / f64::from(1 << 20)));
    Ok(())
}
