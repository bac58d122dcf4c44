//! Tasks by number.

use super::task::Task;

/// Tasks of a disk, each with a number while it is under way.
#[derive(Debug, Default)]
pub struct Tasks {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    task: Task,
    /// It has not begun.
    is_held: bool,
}

impl Tasks {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds one; its number.
    pub fn insert(&mut self, task: Task) -> u32 {
        let entry = Some(Entry { task, is_held: false });
        if let Some(key) = self.free.pop()
            && let Some(place) = self.entries.get_mut(key as usize)
        {
            *place = entry;
            return key;
        }
        self.entries.push(entry);
        // There are as many as rings have room for.
        (self.entries.len() - 1) as u32
    }

    fn entry(&mut self, key: u32) -> Option<&mut Entry> {
        self.entries.get_mut(key as usize)?.as_mut()
    }

    /// One of them.
    pub fn get(&self, key: u32) -> Option<&Task> {
        self.entries.get(key as usize)?.as_ref().map(|entry| &entry.task)
    }

    /// One of them, to be changed.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut Task> {
        self.entry(key).map(|entry| &mut entry.task)
    }

    /// Takes one out.
    pub fn remove(&mut self, key: u32) -> Option<Task> {
        let entry = self.entries.get_mut(key as usize)?.take()?;
        self.free.push(key);
        Some(entry.task)
    }

    /// Keeps one from beginning.
    pub fn hold(&mut self, key: u32) {
        if let Some(entry) = self.entry(key) {
            entry.is_held = true;
        }
    }

    /// Lets one begin; false if it has.
    pub fn release(&mut self, key: u32) -> bool {
        self.entry(key).is_some_and(|entry| std::mem::take(&mut entry.is_held))
    }
}
