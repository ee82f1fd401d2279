//! The most memory that the program has taken.

use burn::tensor::Device;

use crate::device;

/// Returns the most memory in bytes that the process has taken on the CPU; `None` for other devices and systems that do not say.
pub(super) fn peak(used: &Device) -> Option<u64> {
    device::is_host(used).then(|| std::fs::read_to_string("/proc/self/status").ok())?.as_deref().and_then(parsed)
}

/// Reads the line `VmHWM:   123 kB` of Linux's description of a process.
fn parsed(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::parsed;

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(parsed("Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t  123 kB\n"), Some(123 * 1024));
        assert_eq!(parsed("VmHWM: many kB"), None);
        assert_eq!(parsed(""), None);
    }
}
