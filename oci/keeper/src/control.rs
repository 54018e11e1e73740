//! The socket on which wharfd asks: see the table in `wire.rs`. Only our own user may.

use linux_raw_sys::errno;
use linux_raw_sys::general::{POLLIN, pollfd};
use wharf_keeper::{self as wire, attach, kind, size};

use crate::attach::Clients;
use crate::stream::{Kind, Stream};
use crate::sys::{self, Fd};

/// wharfd needs one connection, and one more for each `wait` or `attach` that it does not share.
pub const CONNECTIONS: usize = 8;

/// The listening socket and who is connected.
pub struct Control {
    listening: bool,
    table: [Option<Connection>; CONNECTIONS],
    accepted: u64,
}

struct Connection {
    socket: Fd,
    number: u64,
}

/// What a request may act on.
pub struct Subject<'a> {
    /// The container's init.
    pub pid: u32,
    /// Which start of the container it is.
    pub run: u64,
    /// Is there a [`wire::fd::STDIN`] to hand out?
    pub has_stdin: bool,
    /// Its outputs.
    pub streams: &'a mut [Stream],
    /// Who gets them.
    pub clients: &'a mut Clients,
}

impl Control {
    /// Listen on [`wire::fd::LISTEN`], if that was given.
    pub fn new(listening: bool) -> Self {
        let listening = listening && sys::set_nonblocking(wire::fd::LISTEN).is_ok();
        Self { listening, table: [const { None }; CONNECTIONS], accepted: 0 }
    }

    /// What to wait for: the listener in `entries[0]`, then the connections.
    pub fn watch(&self, entries: &mut [pollfd]) {
        let listener = if self.listening { wire::fd::LISTEN } else { -1 };
        let connections =
            self.table.iter().map(|slot| slot.as_ref().map_or(-1, |connection| connection.socket.raw()));
        for (entry, fd) in entries.iter_mut().zip(core::iter::once(listener).chain(connections)) {
            *entry = pollfd { fd, events: POLLIN as i16, revents: 0 };
        }
    }

    /// Answer whoever asked, and accept whoever came.
    pub fn serve(&mut self, entries: &[pollfd], subject: &mut Subject<'_>) {
        let Some((listener, connections)) = entries.split_first() else { return };
        for (entry, slot) in connections.iter().zip(&mut self.table) {
            if entry.revents != 0
                && let Some(connection) = slot
                && !answer(connection.socket.raw(), subject)
            {
                *slot = None;
            }
        }
        if listener.revents != 0 {
            self.accept();
        }
    }

    /// Tell everyone, also those who have not been accepted yet.
    pub fn announce(&mut self, message: &[u8]) {
        for connection in self.table.iter().flatten() {
            let _ = sys::send(connection.socket.raw(), message, None);
        }
        while self.listening
            && let Ok(socket) = sys::accept(wire::fd::LISTEN)
        {
            if sys::peer_is_own_user(socket.raw()) {
                let _ = sys::send(socket.raw(), message, None);
            }
        }
    }

    /// When the table is full the oldest connection goes: the newest is that of the wharfd that lives.
    fn accept(&mut self) {
        let Ok(socket) = sys::accept(wire::fd::LISTEN) else { return };
        if !sys::peer_is_own_user(socket.raw()) {
            return;
        }
        self.accepted += 1;
        let connection = Connection { socket, number: self.accepted };
        let place = self.table.iter_mut().min_by_key(|slot| slot.as_ref().map_or(0, |held| held.number));
        if let Some(slot) = place {
            *slot = Some(connection);
        }
    }
}

/// Receive one request and answer it. Is the connection to be kept?
fn answer(socket: i32, subject: &mut Subject<'_>) -> bool {
    let mut request = [0; size::MAX];
    let Ok(received) = sys::receive(socket, &mut request) else { return false };
    // The end; nobody sends an empty message.
    if received.length == 0 {
        return false;
    }
    let [first, second, third] = received.fds;
    let brought = usize::from(first.is_some()) + usize::from(second.is_some()) + usize::from(third.is_some());
    let outcome = match &request[..received.length] {
        _ if !received.whole => Err(errno::EINVAL),
        [kind::HELLO] if brought == 0 => return status(socket, subject),
        &[kind::RESIZE, a, b, c, d] if brought == 0 => {
            resize(subject, u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
        }
        &[kind::ATTACH, flags] if third.is_none() => match attach(subject, flags, first, second) {
            Ok(()) => {
                let stdin = flags & attach::STDIN != 0 && subject.has_stdin;
                return sys::send(socket, &[kind::ATTACHED], stdin.then_some(wire::fd::STDIN)).is_ok();
            }
            Err(errno) => Err(errno),
        },
        _ => Err(errno::EINVAL),
    };
    let [a, b, c, d] = outcome.err().unwrap_or(0).to_le_bytes();
    let refused = [kind::REFUSED, a, b, c, d];
    sys::send(socket, if outcome.is_ok() { &[kind::DONE] } else { &refused }, None).is_ok()
}

fn status(socket: i32, subject: &Subject<'_>) -> bool {
    let mut message = [kind::STATUS; size::STATUS];
    message[1..5].copy_from_slice(&wire::VERSION.to_le_bytes());
    message[5..9].copy_from_slice(&subject.pid.to_le_bytes());
    message[9..].copy_from_slice(&subject.run.to_le_bytes());
    sys::send(socket, &message, Some(wire::fd::INIT)).is_ok()
}

fn resize(subject: &Subject<'_>, rows: u16, columns: u16) -> Result<(), u32> {
    let terminal =
        subject.streams.iter().find(|stream| stream.kind == Kind::Terminal).ok_or(errno::ENOTTY)?;
    let master = terminal.fd().ok_or(errno::EIO)?;
    sys::set_terminal_size(master, rows, columns).map_err(|error| error.0)
}

/// EINVAL: unknown flags, or not the descriptors that they announce. ENOTTY, EISCONN... say what is wrong with
/// right ones.
fn attach(subject: &mut Subject<'_>, flags: u8, first: Option<Fd>, second: Option<Fd>) -> Result<(), u32> {
    let has_terminal = subject.streams.iter().any(|stream| stream.kind == Kind::Terminal);
    let kinds = match flags & !attach::STDIN {
        0 if flags != 0 => [None, None],
        attach::STDOUT => [Some(Kind::Stdout), None],
        attach::STDERR => [Some(Kind::Stderr), None],
        both if both == attach::STDOUT | attach::STDERR => [Some(Kind::Stdout), Some(Kind::Stderr)],
        attach::TERMINAL if flags == attach::TERMINAL => [Some(Kind::Terminal), None],
        _ => return Err(errno::EINVAL),
    };
    let fds = [first, second];
    if !kinds.iter().zip(&fds).all(|(kind, fd)| kind.is_some() == fd.is_some()) {
        return Err(errno::EINVAL);
    }
    // Pipes for a terminal, or a terminal for pipes.
    if kinds.iter().flatten().any(|kind| (*kind == Kind::Terminal) != has_terminal) {
        return Err(errno::ENOTTY);
    }
    if subject.clients.room() < kinds.iter().flatten().count() {
        return Err(errno::EUSERS);
    }
    for (kind, fd) in kinds.into_iter().zip(fds) {
        // An output that has ended is at its end for a new client, too: the descriptor is closed at once.
        if let (Some(kind), Some(fd)) = (kind, fd)
            && subject.streams.iter().any(|stream| stream.kind == kind && stream.fd().is_some())
        {
            subject.clients.attach(kind, fd);
        }
    }
    Ok(())
}
