//! The lines of a text file, plain or gzip, within bounds.

use super::file_error::FileError;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of a file we are willing to take in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of one line.
    pub(super) line: usize,
    /// Bytes of the whole text, after decompression: a small file may unfold to a very large one.
    pub(super) text: u64,
}

pub(super) struct Lines {
    path: PathBuf,
    text: Box<dyn BufRead>,
    limits: Limits,
    buffer: Vec<u8>,
    taken: u64,
    number: u64,
    position: Arc<AtomicU64>,
}

impl Lines {
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self, FileError> {
        let position = Arc::new(AtomicU64::new(0));
        let file = File::open(path).map_err(|source| FileError::reading(path, source))?;
        let mut file = BufReader::with_capacity(1 << 16, Counting { file, position: Arc::clone(&position) });
        let start = file.fill_buf().map_err(|source| FileError::reading(path, source))?;
        let text: Box<dyn BufRead> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self { path: path.to_owned(), text, limits, buffer: Vec::new(), taken: 0, number: 0, position })
    }

    /// The next line, with its line feed if it has one.
    pub(super) fn next(&mut self) -> Result<Option<&str>, FileError> {
        self.buffer.clear();
        let most = self.limits.line as u64 + 1;
        let read = (&mut self.text).take(most).read_until(b'\n', &mut self.buffer);
        let read = read.map_err(|source| FileError::reading(&self.path, source).at(self.number + 1))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.taken += read as u64;
        if read as u64 == most {
            let what = format!("the line is longer than {} bytes", self.limits.line);
            return Err(FileError::new(&self.path, what, "check that this is the right file").at(self.number));
        }
        if self.taken > self.limits.text {
            let what = format!("the text is larger than {} MiB", self.limits.text >> 20);
            return Err(FileError::new(&self.path, what, "record a shorter time or fewer callers").at(self.number));
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(line) => Ok(Some(line)),
            Err(_) => {
                let remedy = "check that this is the right file, plain text or gzip";
                Err(FileError::new(&self.path, "the line is not UTF-8 text", remedy).at(self.number))
            }
        }
    }

    /// The number of the line last taken, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the file read so far, as it lies on disk.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }
}

struct Counting {
    file: File,
    position: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
