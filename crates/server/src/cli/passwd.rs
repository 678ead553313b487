//! `campanile passwd`

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail, ensure};
use rustix::fs::{Gid, Uid};

use super::say;
use crate::auth::{
    FileProblem, FileProblems, PasswordFile, SCRAM_ITERATIONS, SCRAM_SALT_BYTES, Verifier,
    check_name, hash_password, random,
};

/// Arguments of `campanile passwd`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Asks for the password twice. The file is made if it is not there, readable for its owner only, \
and replaced in one step. A node that runs takes the change with SIGHUP.

Examples:
  campanile passwd passwords ann
  campanile passwd passwords ann --scram                      also for SCRAM-SHA-256 (MQTT 5)
  printf %s \"$SECRET\" | campanile passwd passwords ann --password-stdin
  campanile passwd passwords ann --delete")]
pub struct PasswdArgs {
    /// The password file: the configuration's clients.password_file
    file: PathBuf,
    /// The user's name
    #[arg(value_parser = parse_user)]
    user: String,
    /// Reads the password from the first line of standard input instead of asking
    #[arg(long)]
    password_stdin: bool,
    /// Also writes a verifier for SCRAM-SHA-256, so that the user can log in without sending the password
    #[arg(long)]
    scram: bool,
    /// Deletes the user
    #[arg(long, conflicts_with_all = ["password_stdin", "scram"])]
    delete: bool,
}

fn parse_user(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

pub(super) fn run(args: &PasswdArgs) -> anyhow::Result<ExitCode> {
    let text = match fs::read_to_string(&args.file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !args.delete => String::new(),
        Err(error) => bail!("{}: cannot be read: {error}", args.file.display()),
    };
    let of_line = |(line, message)| FileProblem {
        path: args.file.clone(),
        line: Some(line),
        message,
    };
    let users = PasswordFile::parse(&text)
        .map_err(|problems| FileProblems(problems.into_iter().map(of_line).collect()))?;
    let known = users.user(&args.user).is_some();
    let (lines, done) = if args.delete {
        ensure!(
            known,
            "there is no user {} in {}",
            args.user,
            args.file.display()
        );
        (Vec::new(), "deleted from")
    } else {
        let password = if args.password_stdin {
            read_password()?
        } else {
            ask_password(&args.user)?
        };
        ensure!(!password.is_empty(), "the password is empty");
        (
            lines_of(&args.user, &password, args.scram),
            if known { "changed in" } else { "added to" },
        )
    };
    replace(&args.file, &with_user(&text, &args.user, &lines))
        .with_context(|| format!("{} cannot be written", args.file.display()))?;
    say(format_args!(
        "user {} {done} {}; a node that runs takes it with SIGHUP",
        args.user,
        args.file.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn read_password() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .context("reading the password")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

fn ask_password(user: &str) -> anyhow::Result<String> {
    let no_terminal = "asking for the password needs a terminal; use --password-stdin without one";
    let password =
        rpassword::prompt_password(format!("Password of {user}: ")).context(no_terminal)?;
    let again = rpassword::prompt_password("Again: ").context(no_terminal)?;
    ensure!(password == again, "the two passwords differ");
    Ok(password)
}

fn lines_of(user: &str, password: &str, scram: bool) -> Vec<String> {
    let mut lines = vec![format!("{user}:{}", hash_password(password.as_bytes()))];
    if scram {
        let salt: [u8; SCRAM_SALT_BYTES] = random();
        lines.push(format!(
            "{user}:{}",
            Verifier::new(password.as_bytes(), &salt, SCRAM_ITERATIONS)
        ));
    }
    lines
}

/// The text with these lines instead of the user's, in their place or at the end. An old verifier goes too: it is of the old password.
fn with_user(text: &str, user: &str, lines: &[String]) -> String {
    let is_users = |line: &str| line.split_once(':').is_some_and(|(name, _)| name == user);
    let mut kept: Vec<&str> = text.lines().filter(|line| !is_users(line)).collect();
    let place = text.lines().position(is_users).unwrap_or(kept.len());
    kept.splice(place..place, lines.iter().map(String::as_str));
    kept.iter().flat_map(|line| [line, "\n"]).collect()
}

/// Writes a file in one step, with the mode and owner of the one that it replaces, or for its owner only.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // Through a symbolic link, so that the link stays.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("it is no file"))?;
    let temporary = path.with_file_name(format!(
        ".{}.{}",
        name.to_string_lossy(),
        std::process::id()
    ));
    let written = write_new(&temporary, &path, text).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // It may not be there; the first error counts.
    }
    written
}

fn write_new(temporary: &Path, model: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)?;
    if let Ok(metadata) = fs::metadata(model) {
        adopt(&file, &metadata)?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The owner first: changing it may take bits from the mode.
fn adopt(file: &File, model: &fs::Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (model.uid(), model.gid()) {
        rustix::fs::fchown(
            file,
            Some(Uid::from_raw(model.uid())),
            Some(Gid::from_raw(model.gid())),
        )?;
    }
    file.set_permissions(model.permissions())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_users_lines_are_replaced_in_place_and_others_stay() {
        let text = "# staff\nann:1\nbob:2\nann:scram\n# end";
        let new = ["ann:3".to_owned()];
        assert_eq!(
            with_user(text, "ann", &new),
            "# staff\nann:3\nbob:2\n# end\n"
        );
        assert_eq!(with_user(text, "ann", &[]), "# staff\nbob:2\n# end\n");
        assert_eq!(with_user("bob:2", "ann", &new), "bob:2\nann:3\n");
        assert_eq!(with_user("", "ann", &new), "ann:3\n");
    }

    #[test]
    fn what_is_written_is_a_password_file_of_both_kinds() {
        let file =
            PasswordFile::parse(&with_user("", "ann", &lines_of("ann", "secret", true))).unwrap();
        let (_, user) = file.user("ann").unwrap();
        assert!(user.hash.is_some() && user.scram.is_some());
    }

    #[test]
    fn a_new_file_is_private_and_an_old_one_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        replace(&path, "a").unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, "b").unwrap();
        assert_eq!(
            (mode(&path), fs::read_to_string(&path).unwrap()),
            (0o640, "b".to_owned())
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
