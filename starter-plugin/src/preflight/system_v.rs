//! System V objects, which are their namespace's and no process's.

use std::fs;
use std::path::Path;

use super::Reason;

/// Objects by their list, which names those of the reader's namespace.
const LISTS: [(&str, &str); 3] = [
    ("shm", "shared memory"),
    ("sem", "semaphores"),
    ("msg", "message queues"),
];

/// CRIU sees such an object only where it is mapped, and a thawed job would miss the others.
pub(super) fn find(lists: &Path) -> Vec<Reason> {
    LISTS
        .into_iter()
        .filter(|(list, _)| {
            let text = fs::read_to_string(lists.join(list)).unwrap_or_default();
            // The first line names the columns.
            text.lines().count() > 1
        })
        .map(|(_, what)| Reason {
            pid: None,
            text: format!(
                "the job uses System V {what}, which CRIU cannot restore without privileges; use POSIX ones \
                 (shm_open, sem_open) or pipes"
            ),
            stops: true,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_that_nobody_has_mapped_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let heading = "       key      semid perms      nsems\n";
        fs::write(dir.path().join("sem"), heading).unwrap();
        assert_eq!(find(dir.path()), []);
        let listed = format!("{heading}     24301          0   600          1\n");
        fs::write(dir.path().join("sem"), listed).unwrap();
        let reasons = find(dir.path());
        assert!(reasons[0].stops);
        assert!(reasons[0].text.contains("System V semaphores"));
    }
}
