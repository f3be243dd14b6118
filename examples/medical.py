"""CT slices in DICOM: patients on one side of the split, the window of the files as data, a prediction of a new file.

python examples/medical.py --out effnet-nodules      (it needs effnet[train,medical], and makes its own phantoms)
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

import effnet


def phantom(nodule: bool, rng: np.random.Generator) -> np.ndarray:
    """Return a slice of a chest in Hounsfield units [64, 64]: air, tissue, two lungs and, in one of them, a nodule."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j] / rng.uniform(0.85, 1.0)
    slice_ = np.where((x / 0.95) ** 2 + (y / 0.7) ** 2 < 1, 40.0, -1000.0)
    for side in (-1, 1):
        slice_[((x - side * 0.42) / 0.33) ** 2 + (y / 0.5) ** 2 < 1] = -850
    center = rng.choice([-1, 1]) * 0.42 + rng.uniform(-0.12, 0.12), rng.uniform(-0.25, 0.25)
    radius = rng.uniform(0.09, 0.14) * nodule
    slice_[np.hypot(x - center[0], y - center[1]) < radius] = 20
    return slice_ + rng.normal(0, 40, slice_.shape)


def write(path: Path, slice_: np.ndarray, patient: str) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID, file.PatientID = CTImageStorage, meta.MediaStorageSOPInstanceUID, patient
    (file.Rows, file.Columns), file.SamplesPerPixel = slice_.shape, 1
    file.PhotometricInterpretation, file.PixelRepresentation = "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.RescaleSlope, file.RescaleIntercept, file.WindowCenter, file.WindowWidth = 1, -1024, -600, 1500  # of lungs
    file.PixelData = np.clip(np.rint(slice_ + 1024), 0, 4095).astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("effnet-nodules"))
parser.add_argument("--patients", type=int, default=240)
parser.add_argument("--epochs", type=int, default=30)
args = parser.parse_args()

rng = np.random.default_rng(0)
with tempfile.TemporaryDirectory() as root:
    for patient, number in np.ndindex(args.patients, 2):
        name = f"{'nodule' if patient % 2 else 'clear'}/{patient:03d}-{number}.dcm"
        write(Path(root, "ct", name), phantom(patient % 2 == 1, rng), f"P{patient:03d}")
    report = effnet.fit(
        Path(root, "ct"), value_range="window", weights="none", max_macs=5e6, epochs=args.epochs, out=args.out
    ).report
    print(*report.dataset.notes, f"test accuracy {report.test.accuracy:.1%}", sep="\n")
    write(Path(root, "new.dcm"), phantom(True, rng), "P999")
    print("a new slice:", effnet.load(args.out).predict(Path(root, "new.dcm"))[0].label)
