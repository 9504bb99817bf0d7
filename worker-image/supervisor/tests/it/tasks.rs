//! Tasks for the worker, packed by the real serializer.

use std::io::Write;
use std::process::{Command, Stdio};

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tasks.py");

/// The Python with the SDK.
pub(crate) fn python() -> String {
    std::env::var("WAYPOST_TEST_PYTHON").expect(
        "WAYPOST_TEST_PYTHON must name a Python that has globus-compute-sdk, such as .venv/bin/python: these tests run real tasks",
    )
}

/// Packs one call.
pub(crate) fn call(function: &str, arguments: Value) -> String {
    pack(&[("one", function, arguments)]).remove(0)
}

/// Packs several calls at once.
pub(crate) fn pack(calls: &[(&str, &str, Value)]) -> Vec<String> {
    let wanted: Vec<_> = calls
        .iter()
        .enumerate()
        .map(|(number, (_, function, arguments))| json!([number.to_string(), function, arguments, {}]))
        .collect();
    let mut child = Command::new(python())
        .arg(SCRIPT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("WAYPOST_TEST_PYTHON can be started");
    let mut input = child.stdin.take().unwrap();
    input.write_all(&serde_json::to_vec(&wanted).unwrap()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "the tasks cannot be packed: is globus-compute-sdk in WAYPOST_TEST_PYTHON?"
    );
    let buffers: Value = serde_json::from_slice(&output.stdout).unwrap();
    (0..calls.len())
        .map(|number| buffers[number.to_string()].as_str().unwrap().to_owned())
        .collect()
}

/// A Task in its wire form.
pub(crate) fn message(task: Uuid, buffer: &str) -> Bytes {
    let body = json!({"message_type": "task", "data": {"task_id": task, "container_id": null, "task_buffer": buffer}});
    let mut bytes = vec![1];
    serde_json::to_writer(&mut bytes, &body).unwrap();
    bytes.into()
}

/// The data of a Result in its wire form.
pub(crate) fn result(body: &[u8]) -> Value {
    assert_eq!(body[0], 1);
    let mut message: Value = serde_json::from_slice(&body[1..]).unwrap();
    assert_eq!(message["message_type"], "result");
    message["data"].take()
}

/// What the function returned, as JSON, unpacked by the real serializer.
pub(crate) fn returned(body: &[u8]) -> Value {
    let result = result(body);
    assert_eq!(result["error_details"], Value::Null, "{result:#}");
    let mut child = Command::new(python())
        .args([SCRIPT, "unpack"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(result["data"].as_str().unwrap().as_bytes()).unwrap();
    drop(input);
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}
