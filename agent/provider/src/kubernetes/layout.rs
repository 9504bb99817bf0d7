//! Where things are in the worker's container.

/// Where the worker's program is in the image that brings it.
pub(super) const FOLDER_IN_IMAGE: &str = "/usr/local/bin";
/// Where it is in the worker's container, if that is of another image.
pub(super) const PROGRAM_FOLDER: &str = "/waypost/bin";
/// Where the block's token and the agent's certificate are.
pub(super) const LINK_FOLDER: &str = "/waypost/link";
/// Home, working directory and what `pip install` writes to. The root file system may be read-only.
pub(super) const HOME: &str = "/waypost/home";
