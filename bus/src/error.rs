//! Errors by name: what a client may want to tell apart. The message is for people: it names the field or the
//! object and says what to do.

use zbus::DBusError;

/// `org.wharf1.Error.*`.
#[derive(Debug, DBusError)]
#[zbus(prefix = "org.wharf1.Error")]
pub enum Error {
    /// Something of D-Bus itself: no connection, unknown method, timeout.
    #[zbus(error)]
    ZBus(zbus::Error),
    /// No container has this name, id or prefix of an id.
    NoSuchContainer(String),
    /// A prefix of an id fits more than one container.
    Ambiguous(String),
    /// Another container has the name.
    NameTaken(String),
    /// The container must be running for this.
    NotRunning(String),
    /// The container is running already, or still.
    Running(String),
    /// The container is paused, or is not.
    WrongState(String),
    /// The spec document is not right; the message begins with the field.
    InvalidSpec(String),
    /// An argument or option of the call is not right.
    InvalidArgument(String),
    /// No image has this name or id.
    NoSuchImage(String),
    /// A container uses the image.
    ImageInUse(String),
    /// The archive or directory is no image, is damaged or is hostile.
    BadImage(String),
    /// The command does not exist in the image: exit code 127.
    CommandNotFound(String),
    /// The command is there but cannot be executed: exit code 126.
    CommandNotExecutable(String),
    /// This kernel, file system or host cannot do it.
    Unsupported(String),
    /// The caller may not do this.
    AccessDenied(String),
    /// A bound was reached (containers, connections, disk).
    LimitReached(String),
    /// Everything else; the message has the whole chain of causes.
    Failed(String),
}
