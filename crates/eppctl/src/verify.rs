//! `eppctl verify`: which version and commit modules and programs were built from, and whether they are intact.

use std::io::{self, Write};
use std::sync::LazyLock;

use build_stamp::{Placeholder, Stamp};
use clap::Args;
use serde::Serialize;
use tested_envoys::TESTED_TEXT;

use crate::input;
use crate::output::{styled, Error, ExitStatus, Output, Report, ERROR, GOOD, STRONG};

/// Print the version and commit of modules and programs of epp-wasm, and compare their digests.
///
/// The digest is what the module logs and exports as a label of epp_wasm_build_info: the beginning of the
/// SHA-256 of the file with commit and digest cleared, so it does not change where only the commit does. It
/// finds files that were damaged or patched. Compare the SHA-256 with the release notes to see whether a file is
/// the published one.
#[derive(Args)]
#[command(after_help = "Examples:
  eppctl verify target/epp_wasm.wasm
  eppctl verify -o json target/epp_wasm.wasm")]
pub struct Verify {
    /// Modules, or eppctl itself; - for standard input.
    #[arg(required = true)]
    files: Vec<String>,
}

/// `make eppctl` and `make dist` fill it in after linking.
static STAMP: Placeholder = Placeholder::new(env!("CARGO_PKG_VERSION"));

/// Returns what `--version` prints after the name.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let stamp = STAMP.read();
        format!(
            "{} (commit {}, digest {}; tested with Envoy {TESTED_TEXT})",
            stamp.version(),
            stamp.commit(),
            stamp.digest()
        )
    });
    &VERSION
}

#[derive(Serialize)]
#[serde(transparent)]
struct Found(Vec<File>);

#[derive(Serialize)]
struct File {
    file: String,
    version: String,
    commit: String,
    digest: String,
    intact: bool,
    sha256: String,
}

impl File {
    fn new(file: &str) -> Result<Self, Error> {
        let found = STAMP.verify(&input::read(file)?);
        let found = found.map_err(|error| Error::new(format!("{file}: {error}")))?;
        let field = |field: fn(&Stamp) -> &str| field(&found.stamp).to_owned();
        Ok(Self {
            file: file.to_owned(),
            version: field(Stamp::version),
            commit: field(Stamp::commit),
            digest: field(Stamp::digest),
            intact: found.intact,
            sha256: found.sha256,
        })
    }
}

impl Verify {
    /// Prints what the files say of their builds.
    pub fn run(&self, output: &mut Output) -> Result<ExitStatus, Error> {
        let files = self.files.iter().map(|file| File::new(file));
        let found = Found(files.collect::<Result<_, _>>()?);
        output.print(&found)?;
        Ok(match found.0.iter().all(|file| file.intact) {
            true => ExitStatus::Ok,
            false => ExitStatus::Findings,
        })
    }
}

impl Report for Found {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for file in &self.0 {
            let (style, verdict) = match (file.intact, file.digest.as_str()) {
                (true, _) => (GOOD, "intact"),
                (false, build_stamp::UNKNOWN) => (ERROR, "not stamped: not built by `make`"),
                (false, _) => (ERROR, "other bytes than were built: damaged or patched"),
            };
            writeln!(
                out,
                "{}: {}",
                styled(STRONG, &file.file),
                styled(style, verdict)
            )?;
            writeln!(out, "  version {}, commit {}", file.version, file.commit)?;
            writeln!(out, "  digest {}, sha256 {}", file.digest, file.sha256)?;
        }
        Ok(())
    }
}
