//! `--cidfile`: a file with the container's id, for scripts.

use anyhow::Context;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file, made before the container so that a container never exists without it. Removed again if no id comes.
#[derive(Debug)]
pub struct IdFile {
    path: PathBuf,
    file: File,
    kept: bool,
}

impl IdFile {
    /// Make it; it must not exist yet.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create_new(path).with_context(|| {
            format!("--cidfile {}: it must be a new file in an existing directory", path.display())
        })?;
        Ok(Self { path: path.to_owned(), file, kept: false })
    }

    /// Write the id.
    pub fn keep(mut self, id: &str) -> anyhow::Result<()> {
        self.kept = true;
        self.file
            .write_all(id.as_bytes())
            .with_context(|| format!("writing --cidfile {}", self.path.display()))
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.kept {
            // An empty file left behind is a nuisance, not worth hiding the real error for.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn file_stays_with_an_id_and_goes_without_one() {
        let path = std::env::temp_dir().join(format!("wharf-ctl-{}-cid", std::process::id()));
        drop(IdFile::create(&path).unwrap());
        assert!(!path.exists());
        IdFile::create(&path).unwrap().keep("abc").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc");
        assert!(IdFile::create(&path).is_err());
        assert!(path.exists());
        std::fs::remove_file(path).unwrap();
    }
}
