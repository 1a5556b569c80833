//! The tests' own view of the page cache (`tests/support/pages.rs`): who claims that memory is shared must see it.

use std::fs::File;

use crate::support::pages::{Mapping, read_through};

#[test]
fn a_file_just_read_is_resident_and_two_mappings_share_frames() {
    let path = std::env::current_exe().unwrap();
    let mut file = File::open(&path).unwrap();
    let length = read_through(&mut file).unwrap();
    let map = Mapping::new(&file).unwrap();
    let resident = map.resident().unwrap();
    assert_eq!(resident.len() as u64, length.div_ceil(rustix::param::page_size() as u64));
    assert!(resident.iter().filter(|page| **page).count() * 10 > resident.len() * 9);
    if rustix::process::geteuid().is_root() {
        let again = Mapping::new(File::open(&path).unwrap()).unwrap();
        assert_eq!(map.frames().unwrap(), again.frames().unwrap());
    }
}

#[test]
fn an_empty_file_has_no_pages() {
    let map = Mapping::new(File::open("/dev/null").unwrap()).unwrap();
    assert_eq!(map.resident(), Ok(vec![]));
    assert_eq!(map.frames(), Ok(vec![]));
}
