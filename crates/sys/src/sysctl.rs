//! Kernel parameters under /proc/sys, by their dotted name. A name is checked before it becomes a path.

use std::io;
use std::path::PathBuf;

/// Reads a parameter, such as `net.ipv4.ip_forward`, without its newline.
pub fn read(name: &str) -> io::Result<String> {
    let text = std::fs::read_to_string(path(name)?).map_err(|error| named(name, error))?;
    Ok(text.trim_end().to_owned())
}

/// Sets a parameter unless it already has the value. Returns whether it was changed.
pub fn write(name: &str, value: &str) -> io::Result<bool> {
    if read(name).is_ok_and(|now| now == value) {
        return Ok(false);
    }
    std::fs::write(path(name)?, value).map_err(|error| named(name, error))?;
    Ok(true)
}

fn named(name: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("sysctl {name}: {error}"))
}

// Dots separate; inside an interface name a dot is written `/`, as sysctl(8) has it.
fn path(name: &str) -> io::Result<PathBuf> {
    let sound = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-/".contains(&byte))
            && !part.starts_with('/')
    };
    if !name.split('.').all(sound) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is not a sysctl name")));
    }
    let mut path = PathBuf::from("/proc/sys");
    path.extend(name.split('.').map(|part| part.replace('/', ".")));
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_below_proc_sys_only() {
        let found = path("net.ipv4.conf.eth0/1.rp_filter").unwrap();
        assert_eq!(found, PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/rp_filter"));
        for bad in ["", ".", "..", "a..b", "/etc", "net.ipv4.", "a b"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(!read("kernel.ostype").unwrap().is_empty());
    }
}
