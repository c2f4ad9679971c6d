//! The executables that are compared, and the upstream of those that call one.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use testbed::{
    Case, packaged, packaged_zip, tested,
    upstream::{Answer, Certificate, Upstream},
    write_executable,
};
use tokio::runtime::{Builder, Runtime};

/// An executable that answers Lambda's invocations, and the invocation that it gets.
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    pub(crate) zip_bytes: u64,
    /// What its answer must contain.
    pub(crate) expected: String,
    /// The function whose settings and measured case it gets.
    pub(crate) function: String,
    /// Whether it is one of this repository's functions.
    pub(crate) ours: bool,
}

/// The upstream's answer.
pub(crate) const UPSTREAM_BODY: &str = "from the upstream";

impl Candidate {
    /// The functions, as `make build` packaged them.
    pub(crate) fn ours() -> Vec<Self> {
        let ours = |name: String| {
            let (executable, zip) = (packaged(&name), packaged_zip(&name));
            // The upstream's answer differs from the one in its cases, but not the status.
            let status = Case::measured(&name).status();
            Self::new(name.clone(), name, &executable, &zip, format!("\"statusCode\":{status}"), true)
        };
        tested().into_iter().map(ours).collect()
    }

    /// Every folder in target/bench with a `bootstrap` and its zip. `testbed/bench/candidates.sh` makes some of them. You
    /// can add another build of a function: its name must begin with the function's, such as `hello-opt-3`.
    pub(crate) fn others() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        let folders = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut others: Vec<Self> = folders
            .filter(|folder| folder.path().join("bootstrap").exists())
            .map(|folder| {
                let (name, path) = (folder.file_name().to_string_lossy().into_owned(), folder.path());
                let (function, expected) = match &*name {
                    name if name.starts_with("fetch") || name == "naive" => ("fetch", UPSTREAM_BODY),
                    name if name.starts_with("time") => ("time", "Current time: "),
                    _ => ("hello", "Hello, world!"),
                };
                let (executable, zip) = (path.join("bootstrap"), path.join("bootstrap.zip"));
                Self::new(name, function.into(), &executable, &zip, expected.into(), false)
            })
            .collect();
        others.sort_by(|one, other| one.name.cmp(&other.name));
        others
    }

    fn new(name: String, function: String, executable: &Path, zip: &Path, expected: String, ours: bool) -> Self {
        let zip_bytes = fs::metadata(zip).unwrap_or_else(|error| panic!("{}: {error}", zip.display())).len();
        let executable = copy(&name, executable);
        Self { name, executable, zip_bytes, expected, function, ours }
    }
}

/// Writes all executables in the same way, and in one piece: the way in which a file got into the page cache changes a
/// start by up to a sixth.
fn copy(name: &str, executable: &Path) -> PathBuf {
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp").join(format!("bench-{name}"));
    let written = fs::read(executable).and_then(|bytes| write_executable(&copy, &bytes));
    written.unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
    copy
}

/// Drives the upstreams on its own thread, so that they answer while the Runtime API waits.
static THREAD: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread"));

/// Starts an upstream whose responses have this `cache_control`, with TLS if `tls` is set.
pub(crate) fn start_upstream(cache_control: &str, tls: bool) -> Upstream {
    let _entered = THREAD.enter();
    let upstream = if tls { Upstream::start_tls(Certificate::Valid) } else { Upstream::start() };
    upstream.always(Answer::ok(UPSTREAM_BODY).header("content-type", "text/plain").cache_control(cache_control));
    upstream
}

/// The settings of `function`, with this `upstream`.
pub(crate) fn settings(function: &str, upstream: &Upstream) -> Vec<(String, String)> {
    let mut settings = testbed::settings(function, upstream);
    if let Some(file) = upstream.ca_file() {
        // The second name is for `naive`.
        let of_file = |name: &str| (name.into(), file.to_string_lossy().into_owned());
        settings.extend(["UPSTREAM_CA_FILE", "SSL_CERT_FILE"].map(of_file));
    }
    settings
}
