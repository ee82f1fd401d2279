//! The most memory that the program has taken.

use std::process::Command;

use burn::tensor::Device;

use crate::device;

/// Returns the most memory in bytes that the program has taken: of the process on the CPU, of the graphics processors on NVIDIA's
/// (LibTorch keeps the memory that it has taken once). `None` for other devices and systems that do not say.
pub(super) fn peak(used: &Device, name: &str) -> Option<u64> {
    if device::is_host(used) {
        return of_process(&std::fs::read_to_string("/proc/self/status").ok()?);
    }
    if !name.contains("cuda") {
        return None;
    }
    let query = ["--query-compute-apps=pid,used_gpu_memory", "--format=csv,noheader,nounits"];
    let output =
        Command::new("nvidia-smi").args(query).output().ok().filter(|output| output.status.success())?;
    of_graphics(&String::from_utf8_lossy(&output.stdout), std::process::id())
}

/// Reads the line `VmHWM:   123 kB` of Linux's description of a process.
fn of_process(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Adds up the mebibytes in the lines `<pid>, <mebibytes>` of a process.
fn of_graphics(list: &str, process: u32) -> Option<u64> {
    let of_line = |line: &str| {
        let (pid, mebibytes) = line.split_once(',')?;
        let is_it = pid.trim().parse() == Ok(process);
        is_it.then(|| mebibytes.trim().parse::<u64>().ok())?
    };
    let parts: Vec<u64> = list.lines().filter_map(of_line).collect();
    (!parts.is_empty()).then(|| parts.iter().sum::<u64>() << 20)
}

#[cfg(test)]
mod tests {
    use super::{of_graphics, of_process};

    #[test]
    fn the_peak_is_read_in_bytes() {
        assert_eq!(of_process("Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t  123 kB\n"), Some(123 * 1024));
        assert_eq!(of_process("VmHWM: many kB"), None);
        assert_eq!(of_process(""), None);
        assert_eq!(of_graphics("12, 100\n7, 3\n12, 5\n", 12), Some(105 << 20));
        assert_eq!(of_graphics("12, [N/A]\n", 12), None);
        assert_eq!(of_graphics("", 12), None);
    }
}
