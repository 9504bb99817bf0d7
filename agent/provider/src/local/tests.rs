use super::*;

fn settings(directory: &Path, worker: &[&str], worker_init: &str) -> LocalSettings {
    LocalSettings {
        names: BlockNames::new(uuid::Uuid::from_u128(0xabc << 96)),
        directory: directory.to_owned(),
        worker_init: worker_init.to_owned(),
        worker: worker.iter().map(|&word| word.to_owned()).collect(),
        environment: BTreeMap::from([("FROM_SETTINGS".to_owned(), "it's set".to_owned())]),
        token: Arc::new(|name| BlockToken::from_text(&format!("token of {name}"))),
    }
}

fn block(number: u32) -> BlockId {
    BlockId { epoch: 1, number }
}

async fn end_of(events: &mut mpsc::UnboundedReceiver<ProviderEvent>, block: BlockId) -> BlockEnd {
    let ended = async {
        loop {
            let event = events.recv().await.expect("the provider lives");
            if let ProviderEvent::Observed {
                block: of,
                state: BlockState::Ended(end),
            } = event
                && of == block
            {
                return end;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .expect("the block ends")
}

#[tokio::test]
async fn a_block_that_fails_says_how_with_its_last_lines_and_leaves_only_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut events) = mpsc::unbounded_channel();
    let worker = [
        "sh",
        "-c",
        "echo \"args: $*, $FROM_SETTINGS, $FROM_INIT\"; exit 3",
        "sh",
    ];
    let settings = settings(directory.path(), &worker, "export FROM_INIT='from init'");
    let mut provider = LocalProvider::new(settings, sender);
    provider.start(block(1));
    let end = end_of(&mut events, block(1)).await;
    assert_eq!((end.kind, end.exit), (BlockEndKind::Crashed, ProcessExit::Code(3)));
    assert!(
        end.output.contains("--block 00000abc-1-1 --token-file"),
        "{}",
        end.output
    );
    assert!(end.output.ends_with("it's set, from init"), "{}", end.output);
    assert_eq!(std::fs::read_dir(directory.path().join("blocks")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(directory.path().join("logs")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_block_is_found_and_ended_by_a_provider_that_did_not_start_it() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut events) = mpsc::unbounded_channel();
    let settings = settings(directory.path(), &["sleep", "600", "#"], "");
    let settings = LocalSettings {
        worker: vec!["sh".to_owned(), "-c".to_owned(), "sleep 600".to_owned()],
        ..settings
    };
    let mut first = LocalProvider::new(settings.clone(), sender);
    first.start(block(1));
    let record = directory.path().join("blocks/00000abc-1-1").join(RECORD);
    let written = async {
        while !std::fs::read_to_string(&record).unwrap_or_default().ends_with('\n') {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.unwrap();

    let (sender, mut later_events) = mpsc::unbounded_channel();
    let mut later = LocalProvider::new(settings, sender);
    assert_eq!(later.list().await.unwrap(), [block(1)]);
    later.delete(block(1));
    let end = end_of(&mut later_events, block(1)).await;
    assert_eq!(end.exit, ProcessExit::Unknown);
    // Whoever started it learns the signal.
    assert_eq!(end_of(&mut events, block(1)).await.exit, ProcessExit::Signal(15));
    assert_eq!(later.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_record_of_a_process_that_is_gone_or_another_is_cleared_away() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, _events) = mpsc::unbounded_channel();
    let settings = settings(directory.path(), &["true"], "");
    for (number, text) in [
        (
            1,
            std::fs::read_to_string("/proc/self/stat").unwrap().replace(" (", "9 ("),
        ),
        (2, "not a stat line\n".to_owned()),
        (3, String::new()),
        // The right process id with another start time: the id was used again.
        (4, {
            let own = std::fs::read_to_string("/proc/self/stat").unwrap();
            let (head, tail) = own.rsplit_once(") ").unwrap();
            let mut fields: Vec<&str> = tail.split(' ').collect();
            fields[19] = "1";
            format!("{head}) {}", fields.join(" "))
        }),
    ] {
        let folder = directory.path().join(format!("blocks/00000abc-1-{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(RECORD), text).unwrap();
    }
    std::fs::create_dir_all(directory.path().join("blocks/of somebody else")).unwrap();
    let mut provider = LocalProvider::new(settings, sender);
    assert_eq!(provider.list().await.unwrap(), []);
    assert_eq!(std::fs::read_dir(directory.path().join("blocks")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_block_that_ignores_sigterm_is_killed_with_what_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, mut events) = mpsc::unbounded_channel();
    let script = "trap '' TERM; setsid sh -c \"trap '' TERM; sleep 601\" & echo child $!; wait; sleep 602";
    let settings = settings(directory.path(), &["sh", "-c", script], "");
    let mut provider = LocalProvider::new(settings, sender);
    provider.start(block(7));
    let log = log_path(directory.path(), "00000abc-1-7");
    let child = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(pid) = text.strip_prefix("child ").and_then(|rest| rest.strip_suffix('\n')) {
                return pid.to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    let child = tokio::time::timeout(Duration::from_secs(60), child).await.unwrap();
    provider.delete(block(7));
    let end = end_of(&mut events, block(7)).await;
    assert_eq!(end.exit, ProcessExit::Signal(9));
    let gone = async {
        while std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("what the block started is ended with it");
}
