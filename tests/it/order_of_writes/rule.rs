//! What must have happened, and in which order, before a client is told that its upload is safe.

use serde_json::Value;

use super::trace::Call;

/// Where a server has its files.
#[derive(Debug, Clone)]
pub struct Paths {
    pub storage: String,
    pub journal: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    Power,
    Process,
}

/// An upload that a client was told is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    pub id: String,
    pub filename: String,
    pub size: u64,
}

/// Checks each answer of a trace that says that an upload is safe: its data were written, flushed and took their name; the directory
/// was flushed; the journal was told of it and flushed; and each of these had ended before the next began.
///
/// # Errors
/// What was wrong with which upload.
pub fn check(calls: &[Call], paths: &Paths, durability: Durability) -> Result<Vec<Acknowledged>, String> {
    let mut acknowledged = Vec::new();
    for answer in calls.iter().filter(|call| is_write(call) && is_socket(call)) {
        let text = answer.texts().concat();
        let Some(upload) = read_answer(&text) else { continue };
        let upload = upload.map_err(|why| format!("{why}: {}", String::from_utf8_lossy(&text)))?;
        let wrong = |why: &str| format!("{} ({}): {why}", upload.filename, upload.id);
        Steps { calls, paths, upload: &upload }.check(answer, durability).map_err(wrong)?;
        acknowledged.push(upload);
    }
    Ok(acknowledged)
}

/// `None`: no answer that acknowledges an upload.
fn read_answer(text: &[u8]) -> Option<Result<Acknowledged, &'static str>> {
    let head = text.starts_with(b"HTTP/1.1 200 ") || text.starts_with(b"HTTP/1.1 201 ");
    let end = text.windows(4).position(|window| window == b"\r\n\r\n")?;
    let body = &text[end + 4..];
    if !head || !body.starts_with(b"{\"success\":true,\"id\"") {
        return None;
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Some(Err("an answer was cut")) };
    let member = |name: &str| body[name].as_str().map(str::to_owned);
    let read = || {
        Some(Acknowledged { id: member("id")?, filename: member("filename")?, size: body["size"].as_u64()? })
    };
    Some(read().ok_or("a member is missing"))
}

pub fn is_write(call: &Call) -> bool {
    matches!(
        &*call.name,
        "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" | "sendto" | "sendmsg" | "copy_file_range"
    )
}

/// Whether it changes a file in some way that a flush must come after.
fn changes(call: &Call) -> bool {
    is_write(call) || matches!(&*call.name, "ftruncate" | "fallocate" | "utimensat")
}

pub fn is_flush(call: &Call) -> bool {
    matches!(&*call.name, "fsync" | "fdatasync")
}

pub fn is_socket(call: &Call) -> bool {
    call.target().is_some_and(|target| target.starts_with("TCP"))
}

struct Steps<'a> {
    calls: &'a [Call],
    paths: &'a Paths,
    upload: &'a Acknowledged,
}

impl<'a> Steps<'a> {
    fn check(&self, answer: &Call, durability: Durability) -> Result<(), &'static str> {
        let rename = self.rename()?;
        let data: Vec<_> = self.calls.iter().filter(|call| changes(call) && self.is_data(call)).collect();
        let written: i64 = data.iter().filter(|call| is_write(call)).map(|call| call.result.max(0)).sum();
        if u64::try_from(written) != Ok(self.upload.size) {
            return Err("not all of it was written");
        }
        let whole = data.iter().map(|call| call.ended).max();
        if whole.is_some_and(|whole| whole > rename.began) {
            return Err("it was written to after it had taken its name");
        }
        let journal = self.journal()?;
        if journal.began <= rename.ended {
            return Err("the journal was told before the file had its name");
        }
        if answer.began <= journal.ended {
            return Err("the client was told before the journal");
        }
        match durability {
            Durability::Power => {
                self.flushed(|call| self.is_data(call), whole.unwrap_or(0), rename)
                    .ok_or("its data were not flushed between the last write and the rename")?;
                self.flushed(|call| call.target() == Some(&self.paths.storage), rename.ended, journal)
                    .ok_or("the directory was not flushed between the rename and the journal")?;
                self.flushed(|call| call.target() == Some(&self.paths.journal), journal.ended, answer)
                    .ok_or("the journal was not flushed between its line and the answer")?;
            }
            Durability::Process => {
                let flushed = |from: usize, to: usize| {
                    let within = |call: &&Call| is_flush(call) && call.began > from && call.ended < to;
                    self.calls.iter().filter(within).any(|call| {
                        self.is_data(call)
                            || call.target() == Some(&self.paths.storage)
                            || call.target() == Some(&self.paths.journal)
                    })
                };
                let first = data.iter().map(|call| call.began).min().unwrap_or(rename.began);
                if flushed(first, answer.began) {
                    return Err("something was flushed although nobody asked for it");
                }
            }
        }
        Ok(())
    }

    /// How it took its name.
    fn rename(&self) -> Result<&'a Call, &'static str> {
        let target = format!("{}/{}", self.paths.storage, self.upload.filename);
        let mut renames = self.calls.iter().filter(|call| {
            let texts = call.texts();
            matches!(&*call.name, "rename" | "renameat" | "renameat2")
                && call.result == 0
                && texts.len() == 2
                && self.is_data_path(&String::from_utf8_lossy(&texts[0]))
                && texts[1] == target.as_bytes()
        });
        match (renames.next(), renames.next()) {
            (Some(rename), None) => Ok(rename),
            (None, _) => Err("it never took its name"),
            (Some(_), Some(_)) => Err("it took its name twice"),
        }
    }

    /// How the journal was told that it is complete.
    fn journal(&self) -> Result<&'a Call, &'static str> {
        let id = format!("\"id\":\"{}\"", self.upload.id);
        let tells = |line: &str| line.contains(&id) && line.contains("\"status\":\"completed\"");
        let mut told = self.calls.iter().filter(|call| {
            is_write(call)
                && call.target() == Some(&self.paths.journal)
                && String::from_utf8_lossy(&call.texts().concat()).lines().any(tells)
        });
        let told = told.next().ok_or("the journal was never told")?;
        // In one write, so that it is there whole or not at all.
        let length = told.texts().iter().map(|text| text.len() as i64).sum::<i64>();
        if told.result == length { Ok(told) } else { Err("the journal was told in part") }
    }

    /// A flush that began after line `after` and ended before `before` began.
    fn flushed(&self, of: impl Fn(&Call) -> bool, after: usize, before: &Call) -> Option<&'a Call> {
        let mut calls = self.calls.iter();
        calls.find(|call| {
            is_flush(call) && call.result == 0 && call.began > after && call.ended < before.began && of(call)
        })
    }

    fn is_data(&self, call: &Call) -> bool {
        call.target().is_some_and(|target| self.is_data_path(target))
    }

    /// Its data file, by whatever name it has among the uploads.
    fn is_data_path(&self, path: &str) -> bool {
        let uploads = format!("{}/.sft/uploads/{}", self.paths.storage, self.upload.id);
        path.starts_with(&uploads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order_of_writes::trace::parse;

    const WRITE: &str = "21 write(9</s/.sft/uploads/ID.data>, \"hello\", 5) = 5";
    const TIME: &str =
        "21 utimensat(9</s/.sft/uploads/ID.data>, NULL, [UTIME_OMIT, {tv_sec=1, tv_nsec=2}], 0) = 0";
    const FLUSH: &str = "21 fsync(9</s/.sft/uploads/ID.data>) = 0";
    const RENAME: &str = "22 rename(\"/s/.sft/uploads/ID.data\", \"/s/a.txt\") = 0";
    const DIRECTORY: &str = "22 fsync(7</s>) = 0";
    const JOURNAL: &str = r#"22 write(8</j>, "x {\"id\":\"ID\",\"status\":\"completed\"}\n", 35) = 35"#;
    const JOURNAL_FLUSH: &str = "22 fdatasync(8</j>) = 0";
    const ANSWER: &str = r#"23 writev(11<TCP:[127.0.0.1:1->127.0.0.1:2]>, [{iov_base="HTTP/1.1 201 Created\r\n\r\n{\"success\":true,\"id\":\"ID\",\"filename\":\"a.txt\",\"size\":5}", iov_len=9}], 1) = 90"#;
    const RIGHT: [&str; 8] = [WRITE, TIME, FLUSH, RENAME, DIRECTORY, JOURNAL, JOURNAL_FLUSH, ANSWER];

    fn judge(lines: &[&str], durability: Durability) -> Result<Vec<Acknowledged>, String> {
        let paths = Paths { storage: "/s".into(), journal: "/j".into() };
        check(&parse(&lines.join("\n")), &paths, durability)
    }

    #[track_caller]
    fn refused(lines: &[&str], why: &str) {
        let error = judge(lines, Durability::Power).expect_err("this order must be refused");
        assert!(error.contains(why), "{error}");
    }

    /// The right order with line `from` moved to place `to`.
    fn moved(from: usize, to: usize) -> Vec<&'static str> {
        let mut lines = RIGHT.to_vec();
        let line = lines.remove(from);
        lines.insert(to, line);
        lines
    }

    fn without(index: usize) -> Vec<&'static str> {
        let mut lines = RIGHT.to_vec();
        lines.remove(index);
        lines
    }

    #[test]
    fn the_right_order_is_accepted() {
        let expected = Acknowledged { id: "ID".into(), filename: "a.txt".into(), size: 5 };
        assert_eq!(judge(&RIGHT, Durability::Power), Ok(vec![expected.clone()]));
        let unflushed = [WRITE, TIME, RENAME, JOURNAL, ANSWER];
        assert_eq!(judge(&unflushed, Durability::Process), Ok(vec![expected]));
    }

    #[test]
    fn data_written_after_their_flush() {
        refused(
            &[FLUSH, WRITE, TIME, RENAME, DIRECTORY, JOURNAL, JOURNAL_FLUSH, ANSWER],
            "its data were not flushed",
        );
    }

    #[test]
    fn time_set_after_the_flush() {
        refused(&moved(1, 2), "its data were not flushed");
    }

    #[test]
    fn data_not_flushed() {
        refused(&without(2), "its data were not flushed");
    }

    #[test]
    fn data_flushed_after_the_rename() {
        refused(&moved(2, 3), "its data were not flushed");
    }

    #[test]
    fn flush_of_the_data_failed() {
        let mut lines = RIGHT.to_vec();
        lines[2] = "21 fsync(9</s/.sft/uploads/ID.data>) = -1 EIO (Input/output error)";
        refused(&lines, "its data were not flushed");
    }

    #[test]
    fn flush_of_the_data_still_underway_at_the_rename() {
        let begun = "21 fsync(9</s/.sft/uploads/ID.data> <unfinished ...>";
        let ended = "21 <... fsync resumed>) = 0";
        refused(
            &[WRITE, TIME, begun, RENAME, ended, DIRECTORY, JOURNAL, JOURNAL_FLUSH, ANSWER],
            "its data were not flushed",
        );
    }

    #[test]
    fn data_written_after_the_rename() {
        refused(&moved(0, 3), "written to after it had taken its name");
    }

    #[test]
    fn data_written_in_part() {
        let mut lines = RIGHT.to_vec();
        lines[0] = "21 write(9</s/.sft/uploads/ID.data>, \"hello\", 5) = 3";
        refused(&lines, "not all of it was written");
    }

    #[test]
    fn never_renamed() {
        refused(&without(3), "never took its name");
    }

    #[test]
    fn rename_failed() {
        let mut lines = RIGHT.to_vec();
        lines[3] =
            "22 rename(\"/s/.sft/uploads/ID.data\", \"/s/a.txt\") = -1 ENOSPC (No space left on device)";
        refused(&lines, "never took its name");
    }

    #[test]
    fn directory_not_flushed() {
        refused(&without(4), "the directory was not flushed");
    }

    #[test]
    fn directory_flushed_before_the_rename() {
        refused(&moved(4, 3), "the directory was not flushed");
    }

    #[test]
    fn directory_flushed_after_the_journal() {
        refused(&moved(4, 5), "the directory was not flushed");
    }

    #[test]
    fn flush_of_the_directory_begun_before_the_rename_ended() {
        let begun = "22 rename(\"/s/.sft/uploads/ID.data\", \"/s/a.txt\" <unfinished ...>";
        let ended = "22 <... rename resumed>) = 0";
        let flush = "24 fsync(7</s>) = 0";
        refused(
            &[WRITE, TIME, FLUSH, begun, flush, ended, JOURNAL, JOURNAL_FLUSH, ANSWER],
            "the directory was not flushed",
        );
    }

    #[test]
    fn journal_told_before_the_rename() {
        refused(&moved(5, 3), "the journal was told before the file had its name");
    }

    #[test]
    fn journal_never_told() {
        refused(&without(5), "the journal was never told");
    }

    #[test]
    fn journal_told_of_another_upload() {
        let mut lines = RIGHT.to_vec();
        lines[5] = r#"22 write(8</j>, "x {\"id\":\"OTHER\",\"status\":\"completed\"}\n", 38) = 38"#;
        refused(&lines, "the journal was never told");
    }

    #[test]
    fn journal_told_in_part() {
        let mut lines = RIGHT.to_vec();
        lines[5] = r#"22 write(8</j>, "x {\"id\":\"ID\",\"status\":\"completed\"}\n", 35) = 12"#;
        refused(&lines, "the journal was told in part");
    }

    #[test]
    fn journal_not_flushed() {
        refused(&without(6), "the journal was not flushed");
    }

    #[test]
    fn journal_flushed_before_it_was_told() {
        refused(&moved(6, 5), "the journal was not flushed");
    }

    #[test]
    fn answered_before_the_journal_was_flushed() {
        refused(&moved(7, 6), "the journal was not flushed");
    }

    #[test]
    fn answered_before_the_journal_was_told() {
        refused(&moved(7, 5), "the client was told before the journal");
    }

    #[test]
    fn answered_at_once() {
        refused(&moved(7, 0), "the client was told before the journal");
    }

    #[test]
    fn answered_while_the_flush_that_others_share_is_underway() {
        let begun = "22 fdatasync(8</j> <unfinished ...>";
        let ended = "22 <... fdatasync resumed>) = 0";
        refused(
            &[WRITE, TIME, FLUSH, RENAME, DIRECTORY, JOURNAL, begun, ANSWER, ended],
            "the journal was not flushed",
        );
    }

    #[test]
    fn a_flush_that_one_asked_not_to_have() {
        let error = judge(&RIGHT, Durability::Process).expect_err("flushes");
        assert!(error.contains("something was flushed"), "{error}");
    }

    #[test]
    fn without_flushes_the_order_is_the_same() {
        for (lines, why) in [
            ([WRITE, TIME, JOURNAL, RENAME, ANSWER], "the journal was told before"),
            ([WRITE, TIME, RENAME, ANSWER, JOURNAL], "the client was told before"),
            ([TIME, RENAME, WRITE, JOURNAL, ANSWER], "written to after"),
        ] {
            let error = judge(&lines, Durability::Process).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
