//! Runs the examples of `README.md` and `docs/` against a real node.
//!
//! A fenced block takes part if an HTML comment stands on the line before it:
//!
//! | comment | meaning |
//! |---|---|
//! | `<!-- run -->` | run in the first terminal; must succeed |
//! | `<!-- run: NAME -->` | run in a second terminal of that name, and do not wait for it |
//! | `<!-- expect -->` | each line is printed within a few seconds, in any terminal; `...` stands for anything |
//!
//! `<!-- stop: NAME -->`, with no block, is Ctrl-C in that terminal. Every file has a node and a temporary directory of its own. The
//! examples name the ports that a node has by default; here they are replaced by those of the node. `CAMPANILE_KEY` holds its API key.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

const KEY: &str = "cmp_a2V5IG9mIHRoZSBkb2N1bWVudGF0aW9uLCBwdWJsaWM";
/// Longest wait for a block, an expected line, the node's start and its stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs all examples; fails at the first that does not do what its page says.
pub fn run(root: &Path, bin: Option<PathBuf>) -> anyhow::Result<()> {
    let bin = match bin {
        Some(bin) => bin
            .canonicalize()
            .with_context(|| format!("there is no {}", bin.display()))?,
        None => build(root)?,
    };
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let mut count = 0;
    for page in pages {
        let steps =
            steps_of(&fs::read_to_string(&page)?).with_context(|| page.display().to_string())?;
        if !steps.is_empty() {
            let mut session = Session::start(&bin).with_context(|| page.display().to_string())?;
            session.run(&steps).map_err(|fault| {
                anyhow!(
                    "{}:{fault}\nprinted:\n{}",
                    page.display(),
                    session.printed()
                )
            })?;
            session.stop()?;
        }
        count += steps.len();
    }
    println!("docs: {count} examples do what they say");
    Ok(())
}

pub fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "campanile"])
        .current_dir(root)
        .status()?;
    ensure!(status.success(), "the binary does not build");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("debug/campanile"))
}

/// One thing that a reader does or sees, and the line of the page that it begins in.
#[derive(Debug, PartialEq)]
struct Step {
    line: usize,
    action: Action,
}

#[derive(Debug, PartialEq)]
enum Action {
    Run {
        terminal: Option<String>,
        script: String,
    },
    Stop {
        terminal: String,
    },
    Expect {
        lines: Vec<String>,
    },
}

fn steps_of(page: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((index, text)) = lines.next() {
        let line = index + 1;
        let comment = text
            .strip_prefix("<!-- ")
            .and_then(|rest| rest.strip_suffix(" -->"));
        let Some(comment) = comment else { continue };
        let (word, name) = comment
            .split_once(": ")
            .map_or((comment, None), |(word, name)| {
                (word, Some(name.to_owned()))
            });
        let mut block = || -> anyhow::Result<Vec<String>> {
            let fence = lines.next().filter(|(_, text)| text.starts_with("```"));
            fence.with_context(|| format!("line {line}: a block must follow"))?;
            Ok(lines
                .by_ref()
                .map(|(_, text)| text.to_owned())
                .take_while(|text| text != "```")
                .collect())
        };
        let action = match (word, name) {
            ("run", terminal) => Action::Run {
                terminal,
                script: block()?.join("\n"),
            },
            ("stop", Some(terminal)) => Action::Stop { terminal },
            ("expect", None) => Action::Expect { lines: block()? },
            _ => continue,
        };
        steps.push(Step { line, action });
    }
    Ok(steps)
}

/// What all terminals printed.
#[derive(Default)]
struct Output {
    text: Mutex<String>,
    grown: Condvar,
}

impl Output {
    fn append(&self, text: &str) {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_str(text);
        self.grown.notify_all();
    }

    /// Waits until `found` answers something about the text from a position on.
    fn wait<T>(&self, from: usize, mut found: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = found(&text[from..]) {
                return Some(answer);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            text = self
                .grown
                .wait_timeout(text, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A shell that gets block after block.
struct Terminal {
    shell: Child,
    input: ChildStdin,
}

impl Terminal {
    fn open(directory: &Path, bin: &Path, output: &Arc<Output>) -> anyhow::Result<Terminal> {
        let path = std::env::var("PATH").unwrap_or_default();
        let directory_of_bin = bin.parent().context("the binary lies nowhere")?;
        let mut shell = Command::new("bash")
            .args(["-euo", "pipefail", "-s"])
            .current_dir(directory)
            .env("PATH", format!("{}:{path}", directory_of_bin.display()))
            .env("CAMPANILE_KEY", KEY)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start bash")?;
        let input = shell.stdin.take().context("the shell has no input")?;
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            shell.stdout.take().map(|stream| Box::new(stream) as _),
            shell.stderr.take().map(|stream| Box::new(stream) as _),
        ];
        for mut stream in streams.into_iter().flatten() {
            let output = Arc::clone(output);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    output.append(&String::from_utf8_lossy(&buffer[..length]));
                }
            });
        }
        Ok(Terminal { shell, input })
    }

    fn interrupt(mut self) -> anyhow::Result<()> {
        signal_group(&self.shell, Signal::INT);
        drop(self.input);
        self.shell.wait()?;
        Ok(())
    }
}

fn signal_group(leader: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(leader.id()).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        let _ = kill_process_group(pid, signal);
    }
}

/// A node, and the terminals of someone who reads a page.
struct Session {
    directory: tempfile::TempDir,
    bin: PathBuf,
    node: Child,
    ports: Vec<(&'static str, String)>,
    output: Arc<Output>,
    terminals: BTreeMap<Option<String>, Terminal>,
    blocks: usize,
    seen: usize,
}

impl Session {
    fn start(bin: &Path) -> anyhow::Result<Session> {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        let log = File::create(directory.path().join("node.log"))?;
        let node = Command::new(bin)
            .args([
                "serve",
                "--dev",
                "--mqtt",
                "127.0.0.1:0",
                "--ws",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(&data)
            .env("CAMPANILE_DEV_KEY", KEY)
            .process_group(0)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", bin.display()))?;
        let mut session = Session {
            directory,
            bin: bin.to_owned(),
            node,
            ports: Vec::new(),
            output: Arc::default(),
            terminals: BTreeMap::new(),
            blocks: 0,
            seen: 0,
        };
        session.ports = session.ports_of(&data.join("addresses.json"))?;
        Ok(session)
    }

    /// The default ports, and those of the node instead.
    fn ports_of(&mut self, file: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
        let deadline = Instant::now() + PATIENCE;
        let text = loop {
            if let Ok(text) = fs::read_to_string(file) {
                break text;
            }
            let log =
                || fs::read_to_string(self.directory.path().join("node.log")).unwrap_or_default();
            ensure!(
                self.node.try_wait()?.is_none(),
                "the node ended:\n{}",
                log()
            );
            ensure!(
                Instant::now() < deadline,
                "the node does not come up:\n{}",
                log()
            );
            thread::sleep(Duration::from_millis(10));
        };
        let addresses: serde_json::Value = serde_json::from_str(&text)?;
        let port = |address: &serde_json::Value| {
            let port = address
                .as_str()
                .and_then(|address| address.rsplit_once(':'))
                .map(|(_, port)| port.to_owned());
            port.with_context(|| format!("no address in {text}"))
        };
        Ok(vec![
            ("1883", port(&addresses["mqtt"][0])?),
            ("8083", port(&addresses["ws"][0])?),
            ("8080", port(&addresses["http"])?),
        ])
    }

    fn run(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        for Step { line, action } in steps {
            self.act(action)
                .map_err(|fault| anyhow!("{line}: {fault:#}"))?;
        }
        Ok(())
    }

    fn act(&mut self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::Run { terminal, script } => self.run_block(terminal.clone(), script),
            Action::Stop { terminal } => {
                let terminal = self.terminals.remove(&Some(terminal.clone()));
                terminal.context("there is no such terminal")?.interrupt()
            }
            Action::Expect { lines } => lines.iter().try_for_each(|line| self.expect(line)),
        }
    }

    fn run_block(&mut self, name: Option<String>, script: &str) -> anyhow::Result<()> {
        self.blocks += 1;
        let file = self
            .directory
            .path()
            .join(format!("block-{}.sh", self.blocks));
        let script = self
            .ports
            .iter()
            .fold(script.to_owned(), |text, (default, port)| {
                text.replace(default, port)
            });
        fs::write(&file, script)?;
        let terminal = match self.terminals.remove(&name) {
            Some(terminal) => terminal,
            None => Terminal::open(self.directory.path(), &self.bin, &self.output)?,
        };
        let terminal = self.terminals.entry(name.clone()).or_insert(terminal);
        let done = format!("[end of block {}]", self.blocks);
        if name.is_some() {
            return Ok(writeln!(terminal.input, ". {} </dev/null", file.display())?);
        }
        writeln!(
            terminal.input,
            "trap 'echo \"[failed: $?]\"' EXIT; . {} </dev/null; echo '{done}'",
            file.display()
        )?;
        let from = self
            .output
            .text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        self.seen = from;
        let ended = self.output.wait(from, |text| match () {
            () if text.contains(&done) => Some(true),
            () if text.contains("[failed: ") => Some(false),
            () => None,
        });
        match ended {
            Some(true) => Ok(()),
            Some(false) => bail!("the block fails"),
            None => bail!("the block does not end"),
        }
    }

    fn expect(&mut self, line: &str) -> anyhow::Result<()> {
        let found = self.output.wait(self.seen, |text| {
            text.lines()
                .any(|printed| matches(printed, line))
                .then_some(())
        });
        found.with_context(|| format!("nothing prints {line:?}"))
    }

    fn printed(&self) -> String {
        self.output
            .text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn stop(mut self) -> anyhow::Result<()> {
        signal_group(&self.node, Signal::TERM);
        let status = self.node.wait()?;
        ensure!(status.success(), "the node ends with {status}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (_, mut terminal) in std::mem::take(&mut self.terminals) {
            signal_group(&terminal.shell, Signal::KILL);
            let _ = terminal.shell.wait();
        }
        signal_group(&self.node, Signal::KILL);
        let _ = self.node.wait();
    }
}

/// Whether a printed line has the parts of an expected one in their order.
fn matches(printed: &str, expected: &str) -> bool {
    let mut rest = printed;
    expected
        .split("...")
        .map(str::trim)
        .all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_blocks_are_the_steps_of_a_page() {
        let page = "text\n```sh\nnot marked\n```\n<!-- run -->\n```sh\na\nb\n```\n<!-- run: device -->\n```sh\nc\n```\n\
                    <!-- expect -->\n```text\nd ... e\n```\n<!-- a comment -->\n<!-- stop: device -->\n";
        let device = || "device".to_owned();
        let expected = [
            (
                5,
                Action::Run {
                    terminal: None,
                    script: "a\nb".to_owned(),
                },
            ),
            (
                10,
                Action::Run {
                    terminal: Some(device()),
                    script: "c".to_owned(),
                },
            ),
            (
                14,
                Action::Expect {
                    lines: vec!["d ... e".to_owned()],
                },
            ),
            (19, Action::Stop { terminal: device() }),
        ];
        let expected = expected.map(|(line, action)| Step { line, action });
        assert_eq!(steps_of(page).expect("the page is well marked"), expected);
        assert!(steps_of("<!-- run -->\nno block").is_err());
    }

    #[test]
    fn an_expected_line_may_leave_parts_open() {
        assert!(matches("HTTP/1.1 202 Accepted", "202"));
        assert!(matches(
            r#"{"push_id":"01A","targeted":1}"#,
            r#"{"push_id":"...","targeted":1}"#
        ));
        assert!(!matches("b a", "a ... b"));
    }
}
