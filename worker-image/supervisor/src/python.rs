//! The Python executor package, which the worker carries with it: any Python that has `globus-compute-sdk` serves.

use serde::Serialize;

/// What `python3 -c` is given; it takes the rest from its standard input.
pub(crate) const BOOTSTRAP: &str = include_str!("../../python/bootstrap.py");

const MODULES: &[(&str, &str)] = &[
    (
        "accelerators",
        include_str!("../../python/waypost_executor/accelerators.py"),
    ),
    ("contract", include_str!("../../python/waypost_executor/contract.py")),
    ("executor", include_str!("../../python/waypost_executor/executor.py")),
    ("main", include_str!("../../python/waypost_executor/main.py")),
    ("native", include_str!("../../python/waypost_executor/native.py")),
    ("package", include_str!("../../python/waypost_executor/package.py")),
    ("plain", include_str!("../../python/waypost_executor/plain.py")),
    ("strays", include_str!("../../python/waypost_executor/strays.py")),
    ("timeout", include_str!("../../python/waypost_executor/timeout.py")),
    ("warm", include_str!("../../python/waypost_executor/warm.py")),
];

/// What executors must know; see `contract.Contract` and `accelerators`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    pub(crate) endpoint_id: uuid::Uuid,
    pub(crate) working_directory: String,
    pub(crate) sandbox: bool,
    pub(crate) allowed_serializers: Vec<String>,
    pub(crate) result_size_limit: u64,
    /// The accelerator of each slot; none at all, or at least as many as there are slots.
    pub(crate) accelerators: Vec<String>,
}

/// The package and its settings as the bootstrap reads them: a length, then JSON.
pub(crate) fn package(settings: &Settings) -> Result<Vec<u8>, serde_json::Error> {
    let modules: serde_json::Map<_, _> = MODULES
        .iter()
        .map(|(name, source)| ((*name).to_owned(), serde_json::Value::from(*source)))
        .collect();
    let json = serde_json::to_vec(&serde_json::json!({ "modules": modules, "settings": settings }))?;
    // The package is some 20 KiB.
    let mut bytes = u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    bytes.extend(json);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_of_the_package_is_carried() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/waypost_executor");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".py").map(str::to_owned))
            .filter(|name| name != "__init__")
            .collect();
        files.sort();
        let carried: Vec<_> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(files, carried);
    }
}
