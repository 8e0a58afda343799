//! Which of the files on a command line are the same one.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Regular files, each known by its device and inode: a link is the file that it leads to.
#[derive(Debug, Default)]
pub(crate) struct Files<'a>(HashMap<(u64, u64), &'a Path>);

impl<'a> Files<'a> {
    /// Adds a file, and returns the name under which it was added before. What is no file, or not
    /// there yet, is not added.
    pub(crate) fn add(&mut self, path: &'a Path) -> Option<&'a Path> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        self.0.insert((metadata.dev(), metadata.ino()), path)
    }
}
