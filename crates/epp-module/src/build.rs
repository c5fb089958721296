//! Which version and commit this module was built from.

use build_stamp::{Placeholder, Stamp};
use epp_core::metrics::definitions::BUILD_INFO;
use epp_core::metrics::labels::Build;
use epp_core::metrics::{self, MetricKind};

use super::statistics::Sample;

/// `scripts/module` fills it in after linking.
static STAMP: Placeholder = Placeholder::new(env!("CARGO_PKG_VERSION"));

/// Returns the module's version, commit and digest.
fn stamp() -> Stamp {
    STAMP.read()
}

/// Returns which build of the module this is.
pub fn text() -> String {
    let build = stamp();
    let (version, commit, digest) = (build.version(), build.commit(), build.digest());
    format!("epp-wasm {version} as a dynamic module (commit {commit}, digest {digest})")
}

/// Returns the metric that says it. Envoy does not tell modules its own version.
pub fn metric() -> Option<Sample> {
    let build = stamp();
    let labels = Build {
        version: build.version(),
        commit: build.commit(),
        digest: build.digest(),
        envoy: "unknown",
        tested: false,
    };
    let name = metrics::without_pool(&BUILD_INFO, labels);
    Sample::of(name, MetricKind::Gauge, 1)
}
