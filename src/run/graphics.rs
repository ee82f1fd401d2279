//! Which graphics processor and driver computed a record.

use std::process::Command;
use std::sync::OnceLock;

/// Graphics processor and driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Graphics {
    /// Name of the processor; of several, each name once.
    pub(super) gpu: String,
    /// Version of the driver.
    pub(super) driver: String,
}

/// Asks NVIDIA's tool about the processors of a device such as `libtorch:cuda:0`, once per program. `None` for other devices, and
/// where there is no such tool.
pub(super) fn of(device: &str) -> Option<Graphics> {
    static KNOWN: OnceLock<Option<Graphics>> = OnceLock::new();
    if !device.contains("cuda") {
        return None;
    }
    let ask = || {
        let query = ["--query-gpu=index,uuid,name,driver_version", "--format=csv,noheader"];
        let output = Command::new("nvidia-smi").args(query).output().ok()?;
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then(|| of_list(&list, visible.as_deref(), device))?
    };
    KNOWN.get_or_init(ask).clone()
}

/// Reads lines of `index, uuid, name, driver`. Of these, the program sees those that `visible` names, in its order, or all, and of
/// these it uses the ones with the numbers in `device`, or all.
fn of_list(list: &str, visible: Option<&str>, device: &str) -> Option<Graphics> {
    let lines: Vec<Vec<&str>> =
        list.lines().map(|line| line.splitn(4, ',').map(str::trim).collect()).collect();
    let named = |id: &str| {
        lines.iter().find(|line| line[0] == id || line.get(1).is_some_and(|uuid| uuid.starts_with(id)))
    };
    let seen: Vec<&Vec<&str>> = match visible.map(str::trim).filter(|visible| !visible.is_empty()) {
        Some(visible) => visible.split(',').filter_map(|id| named(id.trim())).collect(),
        None => lines.iter().collect(),
    };
    let number = |part: &str| part.trim().rsplit(':').next()?.parse::<usize>().ok();
    let numbers: Vec<usize> = device.split(',').filter_map(number).collect();
    let used = seen.iter().enumerate().filter(|(place, _)| numbers.is_empty() || numbers.contains(place));
    let mut names: Vec<&str> = Vec::new();
    let mut driver = None;
    for (_, line) in used {
        let &[_, _, name, version] = line.as_slice() else { continue };
        if !names.contains(&name) {
            names.push(name);
        }
        driver = driver.or(Some(version));
    }
    Some(Graphics { gpu: names.join(" + "), driver: driver?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::{Graphics, of_list};

    const LIST: &str = "0, GPU-aa, NVIDIA A100, 550.54\n1, GPU-bb, NVIDIA H200, 550.54\n";

    #[test]
    fn the_processors_in_use_are_named() {
        let found =
            |visible: Option<&str>, device: &str| of_list(LIST, visible, device).map(|found| found.gpu);
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(found(None, "libtorch:cuda:1"), name("NVIDIA H200"));
        assert_eq!(found(None, "libtorch:cuda:all"), name("NVIDIA A100 + NVIDIA H200"));
        assert_eq!(found(None, "libtorch:cuda:0,libtorch:cuda:1"), name("NVIDIA A100 + NVIDIA H200"));
        assert_eq!(found(Some("1"), "libtorch:cuda:0"), name("NVIDIA H200"));
        assert_eq!(found(Some("GPU-aa"), "libtorch:cuda:0"), name("NVIDIA A100"));
        assert_eq!(found(None, "libtorch:cuda:7"), None);
        assert_eq!(of_list("", None, "libtorch:cuda:0"), None);
        let whole = Graphics { gpu: "NVIDIA A100".into(), driver: "550.54".into() };
        assert_eq!(of_list(LIST, None, "libtorch:cuda:0"), Some(whole));
    }
}
