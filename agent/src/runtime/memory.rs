//! Memory that blocks no longer need goes back to the system.
//!
//! glibc's allocator keeps what was freed between things that are still in use, page by page and in an arena for each few
//! threads: an agent that once had thousands of links would stay as large as it was then. It gives such pages back when it is
//! asked to, which takes a millisecond for every few dozen MiB. So it is asked each time that half of the blocks are gone.
//!
//! The call is `unsafe` only because it is C's: it takes no pointer, and any thread may make it at any time
//! (malloc_trim(3), "MT-Safe"). Other C libraries have none.
#![expect(unsafe_code, reason = "see the module's documentation")]

/// Follows how many blocks there are, as the tide.
#[derive(Debug, Default)]
pub(super) struct Ebb {
    most: usize,
}

impl Ebb {
    /// So many blocks there are now. Asks for what is not needed any more if that is worth it.
    pub(super) fn blocks(&mut self, count: usize) {
        if self.is_low(count) {
            tokio::task::spawn_blocking(give_back);
        }
    }

    fn is_low(&mut self, count: usize) -> bool {
        let low = count < self.most && count <= self.most / 2;
        if low || count > self.most {
            self.most = count;
        }
        low
    }
}

fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: see the module's documentation.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_half_that_goes_counts_once_and_so_does_the_last_block() {
        let mut ebb = Ebb::default();
        let mut low =
            |counts: &[usize]| -> Vec<usize> { counts.iter().copied().filter(|count| ebb.is_low(*count)).collect() };
        assert_eq!(low(&[0, 1, 5, 16, 12, 9]), Vec::<usize>::new());
        assert_eq!(low(&[8, 8, 7, 5, 4, 3]), [8, 4]);
        assert_eq!(low(&[7, 6, 4, 3, 2, 1, 0, 0]), [3, 1, 0]);
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn what_was_freed_between_what_is_kept_goes_back() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let made: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 8192]).collect();
        let kept: Vec<Vec<u8>> = made.into_iter().step_by(100).collect();
        let before = resident();
        give_back();
        assert!(resident() + (80 << 20) < before, "{before} {}", resident());
        assert_eq!(kept.len(), 200);
    }
}
