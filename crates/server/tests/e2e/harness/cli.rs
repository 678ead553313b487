//! Command-line tools: `mosquitto_pub`, `mosquitto_sub`, `curl`, and our own.

use std::{
    ffi::OsStr,
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{Lines, Node, PATIENCE, Transport, eventually};

/// A tool that runs, and what it prints.
pub struct Tool {
    child: Child,
    /// Its standard output.
    pub output: Lines,
    /// Its standard error.
    pub errors: Lines,
}

impl Tool {
    /// Starts a tool with nothing to read.
    pub fn start<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Tool {
        Tool::of(Command::new(program).args(arguments))
    }

    /// Starts a prepared command with nothing to read.
    pub fn of(command: &mut Command) -> Tool {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|fault| panic!("cannot start {command:?} ({fault}): run ./test once"));
        let output = Lines::of(child.stdout.take().expect("the output is piped"));
        let errors = Lines::of(child.stderr.take().expect("the errors are piped"));
        Tool {
            child,
            output,
            errors,
        }
    }

    /// Our own binary.
    pub fn campanile<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Tool {
        Tool::start(env!("CARGO_BIN_EXE_campanile"), arguments)
    }

    /// The next line of its output.
    pub fn next_line(&self) -> String {
        let line = self.output.take(|line| Some(line.to_owned()));
        line.unwrap_or_else(|| {
            panic!(
                "nothing is printed; errors:\n{}",
                self.errors.all().join("\n")
            )
        })
    }

    /// Waits for its end; it must end well.
    pub fn succeed(mut self) -> Vec<String> {
        let status = self.wait();
        assert!(
            status.success(),
            "{status}:\n{}\n{}",
            self.output.all().join("\n"),
            self.errors.all().join("\n")
        );
        self.output.all()
    }

    /// Waits for its end; it must fail. Answers with all that it says.
    pub fn fail(mut self) -> String {
        let status = self.wait();
        let said = [self.output.all(), self.errors.all()].concat().join("\n");
        assert!(!status.success(), "it should fail, and printed:\n{said}");
        said
    }

    fn wait(&mut self) -> ExitStatus {
        let status = eventually("the tool's end", || {
            self.child.try_wait().expect("the tool can be waited for")
        });
        // The reading threads may be a moment behind.
        let deadline = std::time::Instant::now() + PATIENCE;
        self.output.take_until(deadline, &mut |_| None::<()>);
        self.errors.take_until(deadline, &mut |_| None::<()>);
        status
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mosquitto_sub` with these arguments; prints payloads, a line each.
pub fn mosquitto_sub(node: &Node, arguments: &[&str]) -> Tool {
    Tool::start("mosquitto_sub", mosquitto_arguments(node, arguments))
}

/// `mosquitto_pub` with these arguments, to its end.
pub fn mosquitto_pub(node: &Node, arguments: &[&str]) {
    Tool::start("mosquitto_pub", mosquitto_arguments(node, arguments)).succeed();
}

fn mosquitto_arguments(node: &Node, arguments: &[&str]) -> Vec<String> {
    let is_tls = arguments.contains(&"--cafile");
    let address = node.address(if is_tls {
        Transport::Tls
    } else {
        Transport::Tcp
    });
    let place = [
        "-h".to_owned(),
        address.ip().to_string(),
        "-p".to_owned(),
        address.port().to_string(),
    ];
    place
        .into_iter()
        .chain(arguments.iter().map(|argument| (*argument).to_owned()))
        .collect()
}
