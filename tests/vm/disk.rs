//! The disk below the filesystem, and tampering with it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

const DEVICE: &str = "/dev/vda";
/// Bytes that fs-verity hashes at a time, and blocks of the filesystem.
pub const BLOCK: usize = 4096;

/// Everything read from now on comes from the disk.
pub fn drop_caches() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

/// Flips one bit on the raw disk wherever a block holds exactly these bytes; other copies are of files long gone.
pub fn tamper(block: &[u8]) {
    assert_eq!(block.len(), BLOCK);
    // The device's own cache knows nothing of what files wrote.
    drop_caches();
    let mut device = File::options().read(true).write(true).open(DEVICE).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (mut offset, mut copies) = (0, 0);
    loop {
        let length = device.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        for (index, _) in buffer[..length].chunks(BLOCK).enumerate().filter(|(_, found)| *found == block) {
            device.write_all_at(&[block[100] ^ 1], offset + (index * BLOCK) as u64 + 100).unwrap();
            copies += 1;
        }
        offset += length as u64;
    }
    assert!(copies > 0, "the block is not on the disk");
    device.sync_all().unwrap();
}

/// One block of a file, or the errno of reading it.
pub fn read_block(file: &File, number: usize) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0; BLOCK];
    file.read_exact_at(&mut bytes, (number * BLOCK) as u64)
        .map_err(|error| error.raw_os_error().unwrap_or(0))?;
    Ok(bytes)
}
