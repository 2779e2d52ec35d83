//! A small disk of its own, that can be filled. Needs the right to mount.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file system of some MiB. Dropped, it is unmounted.
pub struct SmallDisk {
    mounted: PathBuf,
    _directory: tempfile::TempDir,
}

/// The file systems to try: in memory, and one with a journal that allocates late.
pub const KINDS: [&str; 2] = ["tmpfs", "ext4"];

impl SmallDisk {
    /// Mounts one; `None`, with a word, where that can't be done.
    pub fn mount(kind: &str, mib: u64) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let mounted = directory.path().join("mounted");
        std::fs::create_dir(&mounted).expect("a directory");
        let mounted_well = match kind {
            "tmpfs" => run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", text(&mounted)]),
            _ => {
                let image = directory.path().join("image");
                let file = OpenOptions::new().write(true).create_new(true).open(&image).expect("an image");
                file.set_len(mib << 20).expect("an image");
                // -m 0: nothing is kept for root, which tests may run as.
                run(&format!("mkfs.{kind}"), &["-q", "-F", "-m", "0", text(&image)])
                    && run("mount", &["-o", "loop", text(&image), text(&mounted)])
            }
        };
        if !mounted_well {
            println!("SKIPPED: {kind} can't be mounted here, so a full one was not tried");
            return None;
        }
        Some(Self { mounted, _directory: directory })
    }

    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Bytes that can still be written.
    pub fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.mounted).expect("its size");
        stat.f_bavail * stat.f_frsize
    }

    /// Leaves so many bytes free, and not one more than it must.
    pub fn fill_but(&self, left: u64) {
        let path = self.mounted.join("filler");
        let mut filler = OpenOptions::new().append(true).create(true).open(path).expect("a file");
        let mut piece = 1 << 20;
        while piece >= 512 && self.free() > left {
            let length = piece.min((self.free() - left) as usize);
            // What was written is there only when it is flushed: ext4 allocates late.
            if filler.write_all(&vec![0; length]).is_err() || filler.sync_all().is_err() {
                piece /= 2;
            }
        }
    }

    /// Gives the space back.
    pub fn empty(&self) {
        std::fs::remove_file(self.mounted.join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = run("umount", &[text(&self.mounted)]) || run("umount", &["-l", text(&self.mounted)]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
