//! The soft links of a root group. The library fails on those of the old form (a B-tree of symbols) and ignores
//! those of the new one. Of the latter, only links in the group's header are read here: up to eight, unless the
//! writer chose otherwise.

use std::collections::BTreeMap;

/// What a name in the root group stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// An object of the file.
    Hard,
    /// The object at this path, which may not exist.
    Soft(String),
}

/// Maximum number of links; more are taken for damage.
const MAX_LINKS: usize = 1 << 16;
/// Maximum number of header blocks; more are taken for damage.
const MAX_BLOCKS: usize = 64;
/// Maximum depth of a tree; deeper ones are taken for damage.
const MAX_DEPTH: u8 = 32;

const MESSAGE_LINK: u64 = 6;
const MESSAGE_SYMBOLS: u64 = 0x11;
const MESSAGE_CONTINUES: u64 = 0x10;
const CACHED_SOFT: u64 = 2;

/// Lists the links of an old-form group in order; `None` if the group has the new form or is damaged. Addresses
/// in the file are relative to `base`; `root` is the address of the group's header.
pub fn of_symbols(bytes: &[u8], base: u64, root: u64) -> Option<Vec<(String, Link)>> {
    let group = Group { bytes, base };
    let symbols = |(kind, at, _): &(u64, u64, u64)| {
        (*kind == MESSAGE_SYMBOLS).then(|| Some((group.number(*at, 8)?, group.number(at + 8, 8)?)))
    };
    let (tree, heap) = group.messages(root)?.iter().find_map(symbols)??;
    let names = Heap { group: &group, data: group.number(group.check(heap, b"HEAP")? + 24, 8)? };
    let mut links = Vec::new();
    group.walk(tree, &names, MAX_DEPTH, &mut links)?;
    Some(links)
}

/// Lists the soft links in the header of a new-form group; empty if the group has the old form or is damaged.
pub fn soft_in_header(bytes: &[u8], base: u64, root: u64) -> Vec<(String, Link)> {
    let group = Group { bytes, base };
    let messages = group.messages(root).unwrap_or_default().into_iter();
    messages.filter(|(kind, ..)| *kind == MESSAGE_LINK).filter_map(|(_, at, _)| group.soft_link(at)).collect()
}

/// Follows soft links from a name to a path; `None` if they form a cycle.
pub fn resolved(links: &BTreeMap<&str, &Link>, name: &str) -> Option<String> {
    let mut path = name.to_owned();
    for _ in 0..=links.len() {
        match links.get(path.trim_start_matches('/')) {
            Some(Link::Soft(target)) => path = target.clone(),
            _ => return Some(path),
        }
    }
    None
}

/// A file whose offsets and lengths have eight bytes.
struct Group<'b> {
    bytes: &'b [u8],
    base: u64,
}

struct Heap<'g, 'b> {
    group: &'g Group<'b>,
    data: u64,
}

impl Heap<'_, '_> {
    fn text(&self, offset: u64) -> Option<String> {
        let start = self.group.place(self.data.checked_add(offset)?)?;
        let text = self.group.bytes.get(start..)?.split(|byte| *byte == 0).next()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

impl Group<'_> {
    fn place(&self, address: u64) -> Option<usize> {
        usize::try_from(address.checked_add(self.base)?).ok()
    }

    /// Reads a little-endian number at an address.
    fn number(&self, address: u64, size: usize) -> Option<u64> {
        let start = self.place(address)?;
        let stored = self.bytes.get(start..start.checked_add(size)?)?;
        Some(stored.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Returns the address if the structure there starts with this signature.
    fn check(&self, address: u64, signature: &[u8; 4]) -> Option<u64> {
        let start = self.place(address)?;
        (self.bytes.get(start..start.checked_add(4)?)? == signature).then_some(address)
    }

    /// Lists the messages of an object's header: type, address and length of each.
    fn messages(&self, header: u64) -> Option<Vec<(u64, u64, u64)>> {
        let new = self.check(header, b"OHDR").is_some();
        let (first, extra) = if new {
            let flags = self.number(header + 5, 1)?;
            // Timestamps and attribute storage thresholds are optional.
            let before = 6 + if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 };
            let width = 1 << (flags & 3);
            let size = self.number(header + before, width)?;
            ((header + before + width as u64, size), if flags & 4 != 0 { 2 } else { 0 })
        } else {
            (self.number(header, 1)? == 1).then_some(())?;
            ((header + 16, self.number(header + 8, 4)?), 0)
        };
        let (mut blocks, mut messages, mut next) = (vec![first], Vec::new(), 0);
        while let Some(&(start, size)) = blocks.get(next).filter(|_| next < MAX_BLOCKS) {
            next += 1;
            let (mut at, end) = (start, start.checked_add(size)?);
            let head = if new { 4 + extra } else { 8 };
            while at.checked_add(head)? <= end {
                let (kind, length) = match new {
                    true => (self.number(at, 1)?, self.number(at + 1, 2)?),
                    false => (self.number(at, 2)?, self.number(at + 2, 2)?),
                };
                at += head;
                messages.push((kind, at, length));
                if kind == MESSAGE_CONTINUES {
                    let (start, size) = (self.number(at, 8)?, self.number(at + 8, 8)?);
                    // Blocks of the new form have a signature in front and a checksum at the end.
                    let (front, both) = if new { (4, 8) } else { (0, 0) };
                    blocks.push((start.checked_add(front)?, size.checked_sub(both)?));
                }
                at += length;
            }
        }
        Some(messages)
    }

    /// Parses the soft link of a link message.
    fn soft_link(&self, message: u64) -> Option<(String, Link)> {
        let flags = self.number(message + 1, 1)?;
        // The link type may be omitted for hard links.
        (flags & 8 != 0 && self.number(message + 2, 1)? == 1).then_some(())?;
        let before = 3 + if flags & 4 != 0 { 8 } else { 0 } + if flags & 0x10 != 0 { 1 } else { 0 };
        let width = 1 << (flags & 3);
        let (start, length) = (message + before + width as u64, self.number(message + before, width)?);
        let end = start.checked_add(length)?;
        let path = self.text(end.checked_add(2)?, self.number(end, 2)?)?;
        Some((self.text(start, length)?, Link::Soft(path)))
    }

    fn text(&self, address: u64, length: u64) -> Option<String> {
        let start = self.place(address)?;
        let text = self.bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)?;
        String::from_utf8(text.to_vec()).ok()
    }

    fn walk(&self, node: u64, names: &Heap, depth: u8, links: &mut Vec<(String, Link)>) -> Option<()> {
        if let Some(leaf) = self.check(node, b"SNOD") {
            for number in 0..self.number(leaf + 6, 2)? {
                let entry = leaf.checked_add(8 + 40 * number)?;
                let name = names.text(self.number(entry, 8)?)?;
                let link = match self.number(entry + 16, 4)? {
                    CACHED_SOFT => Link::Soft(names.text(self.number(entry + 24, 4)?)?),
                    _ => Link::Hard,
                };
                links.push((name, link));
                (links.len() <= MAX_LINKS).then_some(())?;
            }
            return Some(());
        }
        let tree = self.check(node, b"TREE")?;
        let depth = depth.checked_sub(1)?;
        for number in 0..self.number(tree + 6, 2)? {
            // Each child is preceded by a key.
            let child = self.number(tree.checked_add(24 + 8 + 16 * number)?, 8)?;
            self.walk(child, names, depth, links)?;
        }
        Some(())
    }
}
