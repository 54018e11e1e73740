//! Writes tar archives byte for byte, good and bad.

#[derive(Debug, Clone, Default)]
pub struct Tape {
    pub bytes: Vec<u8>,
}

/// One header, before it is written.
#[derive(Debug, Clone)]
pub struct Entry {
    pub flag: u8,
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub prefix: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub data: Vec<u8>,
    /// Instead of the length of the data.
    pub size: Option<u64>,
    pub device: (u32, u32),
    pub magic: &'static [u8; 8],
}

impl Entry {
    pub fn new(flag: u8, name: impl AsRef<[u8]>) -> Entry {
        Entry {
            flag,
            name: name.as_ref().to_vec(),
            link: Vec::new(),
            prefix: Vec::new(),
            mode: if flag == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            gid: 0,
            mtime: 1_000_000_000,
            data: Vec::new(),
            size: None,
            device: (0, 0),
            magic: b"ustar\x0000",
        }
    }

    pub fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
        Entry { data: data.as_ref().to_vec(), ..Entry::new(b'0', name) }
    }

    pub fn dir(name: impl AsRef<[u8]>) -> Entry {
        Entry::new(b'5', name)
    }

    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
        Entry { link: target.as_ref().to_vec(), mode: 0o777, ..Entry::new(b'2', name) }
    }

    pub fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
        Entry { link: target.as_ref().to_vec(), ..Entry::new(b'1', name) }
    }

    pub fn fifo(name: impl AsRef<[u8]>) -> Entry {
        Entry::new(b'6', name)
    }

    pub fn device(name: impl AsRef<[u8]>, major: u32, minor: u32) -> Entry {
        Entry { device: (major, minor), ..Entry::new(b'3', name) }
    }

    pub fn mode(self, mode: u32) -> Entry {
        Entry { mode, ..self }
    }

    pub fn owner(self, uid: u64, gid: u64) -> Entry {
        Entry { uid, gid, ..self }
    }

    pub fn mtime(self, mtime: u64) -> Entry {
        Entry { mtime, ..self }
    }
}

impl Tape {
    pub fn of(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
        let mut tape = Tape::default();
        for entry in entries {
            tape.push(&entry);
        }
        tape.end()
    }

    pub fn push(&mut self, entry: &Entry) -> &mut Tape {
        let mut block = [0_u8; 512];
        let mut put = |at: usize, length: usize, bytes: &[u8]| {
            let length = bytes.len().min(length);
            block[at..at + length].copy_from_slice(&bytes[..length]);
        };
        put(0, 100, &entry.name);
        put(100, 8, format!("{:07o}\0", entry.mode).as_bytes());
        put(108, 8, &number(entry.uid, 8));
        put(116, 8, &number(entry.gid, 8));
        put(124, 12, &number(entry.size.unwrap_or(entry.data.len() as u64), 12));
        put(136, 12, &number(entry.mtime, 12));
        put(148, 8, b"        ");
        put(156, 1, &[entry.flag]);
        put(157, 100, &entry.link);
        put(257, 8, entry.magic);
        put(329, 8, format!("{:07o}\0", entry.device.0).as_bytes());
        put(337, 8, format!("{:07o}\0", entry.device.1).as_bytes());
        put(345, 155, &entry.prefix);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(block);
        self.data(&entry.data)
    }

    pub fn data(&mut self, data: &[u8]) -> &mut Tape {
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// A PAX header for the next entry.
    pub fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Tape {
        let mut data = Vec::new();
        for (key, value) in records {
            data.extend(record(key, value));
        }
        self.pax_raw(b'x', &data)
    }

    pub fn pax_raw(&mut self, flag: u8, data: &[u8]) -> &mut Tape {
        self.push(&Entry { data: data.to_vec(), ..Entry::new(flag, "PaxHeaders/x") })
    }

    /// A GNU long name (`L`) or link (`K`) for the next entry.
    pub fn long(&mut self, flag: u8, name: &[u8]) -> &mut Tape {
        let mut data = name.to_vec();
        data.push(0);
        self.push(&Entry { data, magic: b"ustar  \0", ..Entry::new(flag, "././@LongLink") })
    }

    pub fn end(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// `LENGTH KEY=VALUE\n`.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend(value);
    record.push(b'\n');
    record
}

fn number(value: u64, width: usize) -> Vec<u8> {
    let octal = format!("{value:0width$o}\0", width = width - 1);
    if octal.len() <= width {
        return octal.into_bytes();
    }
    let mut binary = vec![0; width];
    binary[width - 8..].copy_from_slice(&value.to_be_bytes());
    binary[0] |= 0x80;
    binary
}
