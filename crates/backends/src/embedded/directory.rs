//! The files beside the database: who uses the directory, what format it has, how far it was.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{OpenError, io_error};

/// Version of what is stored: raise it when an older program would misread it, or this one what an older one wrote.
const FORMAT: u32 = 2;
const FORMAT_PREFIX: &str = "campanile store format ";

/// A data directory in use by this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
    mark: File,
}

/// How far commits had got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Number of the last commit.
    pub commits: u64,
    /// Written when the store was closed in order.
    pub clean: bool,
}

impl Directory {
    /// Takes a data directory, or makes one.
    pub fn open(path: &Path) -> Result<Directory, OpenError> {
        let io_error = io_error(path);
        fs::create_dir_all(path).map_err(&io_error)?;
        let lock = lock(path)?;
        check_format(path)?;
        let mark = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("MARK"))
            .map_err(&io_error)?;
        Ok(Directory {
            path: path.to_owned(),
            _lock: lock,
            mark,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database is.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where a database is made before it takes its place: a crash while it is made leaves nothing that looks like one.
    pub fn new_store(&self) -> PathBuf {
        self.path.join("store.new")
    }

    /// Gives a database that was just made its place.
    pub fn adopt_new_store(&self) -> io::Result<()> {
        fs::rename(self.new_store(), self.store())?;
        sync_directory(&self.path)
    }

    /// The last mark, if there is one that can be read.
    pub fn read_mark(&self) -> Option<Mark> {
        let mut bytes = [0; 13];
        let mut file = &self.mark;
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        let (content, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let (commits, clean) = content.split_first_chunk::<8>()?;
        Some(Mark {
            commits: u64::from_be_bytes(*commits),
            clean: clean == [1],
        })
    }

    /// Replaces the mark, without waiting for the disk.
    pub fn write_mark(&self, mark: Mark) -> io::Result<()> {
        let mut bytes = mark.commits.to_be_bytes().to_vec();
        bytes.push(mark.clean.into());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        let mut file = &self.mark;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let io_error = io_error(path);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("LOCK"))
        .map_err(&io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            return Err(OpenError::InUse {
                path: path.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(io_error(error)),
    }
    // Only for the message above; the lock is the file's, whatever it says.
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(&io_error)?;
    Ok(file)
}

fn check_format(path: &Path) -> Result<(), OpenError> {
    let io_error = io_error(path);
    let file = path.join("FORMAT");
    let foreign = |reason: String| OpenError::Foreign {
        path: path.to_owned(),
        reason,
    };
    match fs::read_to_string(&file) {
        Ok(text) => {
            let version = text
                .trim()
                .strip_prefix(FORMAT_PREFIX)
                .and_then(|number| number.parse::<u32>().ok());
            match version {
                Some(found) if found > FORMAT => Err(OpenError::Newer {
                    path: path.to_owned(),
                    found,
                    supported: FORMAT,
                }),
                Some(found) if found < FORMAT => Err(OpenError::Older {
                    path: path.to_owned(),
                    found,
                    supported: FORMAT,
                }),
                Some(_) => Ok(()),
                None => Err(foreign(format!("its file FORMAT says {:?}", text.trim()))),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for entry in fs::read_dir(path).map_err(&io_error)? {
                let name = entry.map_err(&io_error)?.file_name();
                // What an interrupted first start leaves, and what a new file system has.
                let known = ["LOCK", "FORMAT.new", "lost+found"]
                    .iter()
                    .any(|known| name == *known);
                if !known {
                    return Err(foreign(format!("it holds {name:?} but no file FORMAT")));
                }
            }
            let new = path.join("FORMAT.new");
            let mut written = File::create(&new).map_err(&io_error)?;
            writeln!(written, "{FORMAT_PREFIX}{FORMAT}").map_err(&io_error)?;
            written.sync_all().map_err(&io_error)?;
            fs::rename(&new, &file).map_err(&io_error)?;
            sync_directory(path).map_err(&io_error)
        }
        Err(error) => Err(io_error(error)),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_torn_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let opened = Directory::open(directory.path()).unwrap();
        assert_eq!(opened.read_mark(), None);
        for mark in [
            Mark {
                commits: 7,
                clean: false,
            },
            Mark {
                commits: u64::MAX,
                clean: true,
            },
        ] {
            opened.write_mark(mark).unwrap();
            assert_eq!(opened.read_mark(), Some(mark));
        }
        fs::write(directory.path().join("MARK"), b"0123456789abc").unwrap();
        assert_eq!(opened.read_mark(), None);
    }

    #[test]
    fn a_directory_in_use_names_its_user() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Directory::open(directory.path()).unwrap();
        let error = Directory::open(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        assert!(
            error.contains(&directory.path().display().to_string()),
            "{error}"
        );
    }

    #[test]
    fn another_format_is_refused_with_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        drop(Directory::open(directory.path()).unwrap());
        let open = |format: &str| {
            let file = directory.path().join("FORMAT");
            fs::write(file, format!("campanile store format {format}\n")).unwrap();
            Directory::open(directory.path()).unwrap_err()
        };
        let newer = open("9");
        let older = open("1");
        assert!(
            matches!(
                newer,
                OpenError::Newer {
                    found: 9,
                    supported: FORMAT,
                    ..
                }
            ),
            "{newer}"
        );
        assert!(
            matches!(older, OpenError::Older { found: 1, .. }),
            "{older}"
        );
    }

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("letters.txt"), "dear").unwrap();
        let error = Directory::open(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    }
}
