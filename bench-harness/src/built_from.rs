//! Which commit this program is built from. Asked while it is built, by `build.rs` (which this file is
//! a part of), for the tree may be another one by the time it runs.
//!
//! The answer stays true because the build asks again when the commit changes or a file that goes into
//! the program does, and only then: [`Origin::watched`] are the files that tell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What goes into the program, from the repository's root.
const SOURCES: [&str; 15] = [
    "Cargo.toml",
    "Cargo.lock",
    "codec/Cargo.toml",
    "codec/src",
    "engine/Cargo.toml",
    "engine/src",
    "engine/core/Cargo.toml",
    "engine/core/src",
    "engine/memory/Cargo.toml",
    "engine/memory/src",
    "bench-harness/Cargo.toml",
    "bench-harness/build.rs",
    "bench-harness/src",
    "bench-harness/broker/Cargo.toml",
    "bench-harness/broker/src",
];

/// What cargo writes into the archive of a crate.
const ARCHIVE_SAYS: &str = ".cargo_vcs_info.json";

/// Where the sources of a build come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The commit, with `-dirty` when the sources differ from it; `None` where nobody can tell.
    pub(crate) commit: Option<String>,
    /// Files and folders that change when the answer does. All of them exist: cargo takes one that
    /// does not for one that changes all the time.
    pub(crate) watched: Vec<PathBuf>,
}

impl Origin {
    /// Of the crate in `folder`, by the word of the program `git`.
    pub(crate) fn of(folder: &Path, git: &str) -> Self {
        Self::of_repository(folder, git)
            .or_else(|| Self::of_archive(folder))
            .unwrap_or_default()
    }

    fn of_repository(folder: &Path, git: &str) -> Option<Self> {
        let ask = |arguments: &[&str]| {
            let output = Command::new(git)
                .arg("--no-optional-locks") // a build leaves the repository as it is
                .arg("-C")
                .arg(folder)
                .args(arguments)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .ok()?;
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success().then_some(said)
        };
        let root = PathBuf::from(ask(&["rev-parse", "--show-toplevel"])?);
        // An unpacked crate may lie in some other repository.
        let ours = root.join("bench-harness").canonicalize().ok()?;
        if ours != folder.canonicalize().ok()? {
            return None;
        }
        let commit = ask(&["rev-parse", "HEAD"])?;
        let status = ["status", "--porcelain", "--untracked-files=no", "--"];
        let from_root: Vec<_> = SOURCES.iter().map(|it| format!(":(top){it}")).collect();
        let from_root = from_root.iter().map(String::as_str);
        let changed = ask(&status.into_iter().chain(from_root).collect::<Vec<_>>())?;
        // In a worktree `.git` is a file, and branches lie in the repository it belongs to.
        let in_git = |name: &str| {
            let path = PathBuf::from(ask(&["rev-parse", "--git-path", name])?);
            Some(folder.join(path))
        };
        let branch = ask(&["symbolic-ref", "-q", "HEAD"]).and_then(|branch| in_git(&branch));
        let watched = ["HEAD", "packed-refs"]
            .into_iter()
            .filter_map(in_git)
            .filter(|path| path.exists())
            // A branch that is packed becomes a file with its next commit.
            .chain(branch.and_then(|branch| there(&branch)))
            .chain(SOURCES.iter().map(|source| root.join(source)))
            .filter(|path| path.exists());
        Some(Self {
            commit: Some(match changed.is_empty() {
                true => commit,
                false => format!("{commit}-dirty"),
            }),
            watched: watched.collect(),
        })
    }

    /// An archive says it in a file of two facts, not worth a parser.
    fn of_archive(folder: &Path) -> Option<Self> {
        let file = folder.join(ARCHIVE_SAYS);
        let text = fs::read_to_string(&file).ok()?;
        let (_, after) = text.split_once("\"sha1\"")?;
        let commit = after.split('"').nth(1)?;
        let dirty = text.contains("\"dirty\": true");
        commit
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit())
            .then(|| Self {
                commit: Some(format!("{commit}{}", if dirty { "-dirty" } else { "" })),
                watched: vec![file],
            })
    }
}

/// `path`, or the nearest folder above it that is there.
fn there(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|path| path.exists())
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with what [`Origin::of`] looks for, removed at the end.
    struct Repository(PathBuf);

    impl Repository {
        fn new(name: &str) -> Self {
            let name = format!("ringpost-built-from-{name}-{}", std::process::id());
            let root = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("tree/bench-harness/src")).expect("made");
            let repository = Self(root);
            repository.git(&["init", "-q", "-b", "main"]);
            repository.edit("one");
            repository.commit();
            repository
        }

        fn tree(&self) -> PathBuf {
            self.0.join("tree")
        }

        fn git(&self, arguments: &[&str]) -> String {
            let output = Command::new("git")
                .arg("-C")
                .arg(self.tree())
                .args(["-c", "user.name=a", "-c", "user.email=a@b"])
                .args(arguments)
                .output()
                .expect("git");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }

        fn edit(&self, text: &str) {
            fs::write(self.tree().join("bench-harness/src/lib.rs"), text).expect("written");
        }

        fn commit(&self) {
            self.git(&["add", "."]);
            self.git(&["commit", "-q", "-m", "a"]);
        }

        fn origin(&self) -> Origin {
            Origin::of(&self.tree().join("bench-harness"), "git")
        }
    }

    impl Drop for Repository {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What cargo would look at: whether any of it is newer than `before`.
    fn contents(origin: &Origin) -> Vec<String> {
        assert!(
            origin.watched.iter().all(|path| path.exists()),
            "{origin:?}"
        );
        let files = origin.watched.iter().filter(|path| path.is_file());
        files
            .map(|path| fs::read_to_string(path).expect("text"))
            .collect()
    }

    #[test]
    fn a_commit_and_whether_the_sources_are_its() {
        let repository = Repository::new("commit");
        let head = repository.git(&["rev-parse", "HEAD"]);
        let first = repository.origin();
        assert_eq!(first.commit.as_deref(), Some(&head[..]));
        assert_eq!(first, repository.origin(), "asking changes nothing");
        repository.edit("two");
        assert_eq!(repository.origin().commit, Some(format!("{head}-dirty")));
        // What is not built does not count.
        repository.edit("one");
        fs::write(repository.tree().join("README.md"), "new").expect("written");
        repository.git(&["add", "."]);
        assert_eq!(repository.origin(), first);
        let before = contents(&first);
        repository.commit();
        assert_ne!(contents(&first), before, "a commit is noticed");
    }

    #[test]
    fn a_packed_branch_a_detached_head_and_a_worktree() {
        let repository = Repository::new("worktree");
        let head = repository.git(&["rev-parse", "HEAD"]);
        repository.git(&["pack-refs", "--all"]);
        let packed = repository.origin();
        assert_eq!(packed.commit.as_deref(), Some(&head[..]));
        contents(&packed);
        let heads = repository.tree().join(".git/refs/heads").canonicalize();
        let watched = |origin: &Origin, path: &Path| {
            origin
                .watched
                .iter()
                .any(|it| it.canonicalize().is_ok_and(|it| it == path))
        };
        assert!(watched(&packed, &heads.expect("there")), "{packed:?}");

        let other = repository.0.join("other");
        repository.git(&["worktree", "add", "-q", &other.display().to_string()]);
        let of_other = Origin::of(&other.join("bench-harness"), "git");
        assert!(other.join(".git").is_file());
        assert_eq!(of_other.commit.as_deref(), Some(&head[..]));
        contents(&of_other);
        let branch = repository
            .tree()
            .join(".git/refs/heads/other")
            .canonicalize();
        assert!(watched(&of_other, &branch.expect("there")), "{of_other:?}");

        repository.git(&["checkout", "-q", "--detach"]);
        assert_eq!(repository.origin().commit.as_deref(), Some(&head[..]));
        contents(&repository.origin());
    }

    #[test]
    fn an_archive_knows_its_commit_and_no_git_is_no_fault() {
        let repository = Repository::new("archive");
        let ours = repository.tree().join("bench-harness");
        assert_eq!(Origin::of(&ours, "no-such-git"), Origin::default());
        // In a repository that is not its own.
        let archive = repository.tree().join("ringpost-bench-0.1.0");
        fs::create_dir(&archive).expect("made");
        assert_eq!(Origin::of(&archive, "git"), Origin::default());
        for (dirty, commit) in [("", "0a1b"), (", \"dirty\": true", "0a1b-dirty")] {
            let says =
                format!("{{\"git\": {{\"sha1\": \"0a1b\"{dirty}}}, \"path_in_vcs\": \"x\"}}");
            fs::write(archive.join(ARCHIVE_SAYS), says).expect("written");
            let origin = Origin::of(&archive, "git");
            assert_eq!(origin.commit.as_deref(), Some(commit));
            assert_eq!(origin.watched.len(), 1);
        }
    }

    #[test]
    fn all_sources_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for source in SOURCES {
            assert!(root.join(source).exists(), "{source}");
        }
    }
}
