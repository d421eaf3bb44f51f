//! Memory available to this process: the limit of its container, or the size of the machine.

use std::fs::read_to_string;
use std::path::Path;

/// Available memory in bytes; `None` if the system does not report it.
pub(crate) fn available() -> Option<usize> {
    let of_machine = of_machine(&read_to_string("/proc/meminfo").ok()?);
    let own = read_to_string("/proc/self/cgroup").unwrap_or_default();
    of_container(&own, Path::new("/sys/fs/cgroup")).into_iter().chain(of_machine).min()
}

fn of_machine(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The smallest limit of the control groups of the process, of either version. In a container the
/// process' own group is the visible root.
fn of_container(own: &str, root: &Path) -> Option<usize> {
    let limits = own.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("/"));
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ => (root.join("memory"), "memory.limit_in_bytes"),
        };
        let group = root.join(path.trim_start_matches('/'));
        let groups = group.ancestors().take_while(|group| group.starts_with(&root));
        let limits = groups.filter_map(|group| read_to_string(group.join(file)).ok());
        limits.filter_map(|limit| limit.trim().parse::<usize>().ok()).collect::<Vec<_>>()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("system.slice/tidings.service");
        std::fs::create_dir_all(&group).unwrap();
        let own = "0::/system.slice/tidings.service\n";
        assert_eq!(of_container(own, root.path()), None);
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(of_container(own, root.path()), None);
        std::fs::write(root.path().join("system.slice/memory.max"), "1073741824\n").unwrap();
        assert_eq!(of_container(own, root.path()), Some(1 << 30));
        std::fs::create_dir_all(root.path().join("memory/x")).unwrap();
        std::fs::write(root.path().join("memory/x/memory.limit_in_bytes"), "5\n").unwrap();
        assert_eq!(of_container("4:memory:/x\n", root.path()), Some(5));
        assert_eq!(of_machine("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
