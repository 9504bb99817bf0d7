//! What a worker's pod runs.

use std::fmt::Write as _;
use std::time::Duration;

use super::KubernetesSettings;
use super::layout::{FOLDER_IN_IMAGE, HOME, LINK_FOLDER, PROGRAM_FOLDER};
use super::secret::{CERTIFICATE, TOKEN};

/// From the end of the worker's own grace to that of the pod: for settling, and for the kubelet to notice.
const GRACE_RESERVE: Duration = Duration::from_secs(10);

/// The command of the init container: puts the program into the volume that both containers share.
pub(super) fn install() -> Vec<String> {
    let program = format!("{FOLDER_IN_IMAGE}/worker");
    [program.as_str(), "install", "--to", PROGRAM_FOLDER]
        .map(str::to_owned)
        .into()
}

/// The command of the worker's container; its one argument is [`script`].
pub(super) fn shell() -> Vec<String> {
    ["/bin/sh", "-c"].map(str::to_owned).into()
}

/// What is true before `worker_init`: what `pip install` puts there is found.
const PRELUDE: &str = "mkdir -p \"$HOME\" \"$TMPDIR\"\nexport PATH=\"$PYTHONUSERBASE/bin:$PATH\"\n";

/// `worker_init`, and then the worker in its place, so that it is the process that signals reach. Its program is in
/// `folder`.
pub(super) fn script(settings: &KubernetesSettings, block: &str, folder: &str) -> String {
    let mut script = PRELUDE.to_owned();
    let init = settings.config.worker_init.trim_end();
    if !init.is_empty() {
        script.push_str(init);
        script.push('\n');
    }
    let _ = write!(script, "exec {folder}/worker");
    let grace = settings.config.termination_grace.saturating_sub(GRACE_RESERVE);
    let mut options = Vec::new();
    for address in &settings.addresses {
        options.extend(["--connect".to_owned(), format!("tls:{address}")]);
    }
    options.extend(
        [
            ("--ca-file", format!("{LINK_FOLDER}/{CERTIFICATE}")),
            ("--token-file", format!("{LINK_FOLDER}/{TOKEN}")),
            ("--block", block.to_owned()),
            ("--working-directory", working_directory(settings)),
            ("--grace", grace.as_secs().to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value]),
    );
    for option in options.iter().chain(&settings.worker_options) {
        let _ = write!(script, " {}", quote(option));
    }
    unexpanded(&script)
}

/// An absolute path is one of the pod's, such as that of a volume.
fn working_directory(settings: &KubernetesSettings) -> String {
    if settings.working_directory.starts_with('/') {
        settings.working_directory.clone()
    } else {
        format!("{HOME}/{}", settings.working_directory)
    }
}

/// As Kubernetes gives it to the shell unchanged: in arguments it reads `$(NAME)` and `$$` itself.
fn unexpanded(script: &str) -> String {
    let mut unexpanded = String::with_capacity(script.len());
    let mut rest = script.chars().peekable();
    while let Some(character) = rest.next() {
        unexpanded.push(character);
        if character == '$' && matches!(rest.peek(), Some('$' | '(')) {
            unexpanded.push('$');
        }
    }
    unexpanded
}

/// A word as the shell reads it back; plain words as they are, so that a pod's description can be read.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::tests::settings;

    #[test]
    fn worker_init_runs_first_and_the_worker_takes_its_place() {
        let mut settings = settings();
        settings.config.worker_init = "pip install 'a>=1'\n\n".to_owned();
        settings.worker_options = vec!["--allowed-serializers".to_owned(), "it's;rm".to_owned()];
        let script = script(&settings, "lab-1-2", PROGRAM_FOLDER);
        let (before, last) = script.rsplit_once('\n').unwrap_or_default();
        assert_eq!(before.strip_prefix(PRELUDE), Some("pip install 'a>=1'"));
        // Each `$$` is read as `$`, and a `$` before anything but `(` as itself.
        assert_eq!(unexpanded("$A ${B} $(C) $$ $$(D)"), "$A ${B} $$(C) $$$ $$$$(D)");
        assert!(last.starts_with("exec /waypost/bin/worker --connect tls:"), "{last}");
        assert!(last.contains(" --block lab-1-2 "), "{last}");
        assert!(last.ends_with(r" --allowed-serializers 'it'\''s;rm'"), "{last}");
    }
}
