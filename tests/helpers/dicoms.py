"""DICOM files for tests, written by pydicom."""

import io
from typing import Any

import numpy as np


def dicom(values: np.ndarray, *, syntax: str = "", media: str = "CTImageStorage", **tags: Any) -> bytes:
    """Return a DICOM file of these values [H, W], [frames, H, W] or, with SamplesPerPixel, [H, W, 3].

    `syntax` is the keyword of a transfer syntax in pydicom.uid, explicit and little-endian by default, `media` that of
    the kind of file; `tags` replace the usual ones, None removes one.
    """
    import pydicom
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = getattr(uid, media), uid.generate_uid()
    meta.TransferSyntaxUID = getattr(uid, syntax or "ExplicitVRLittleEndian")
    packed = syntax == "RLELossless"
    file = Dataset()
    file.file_meta = meta
    colour = tags.get("SamplesPerPixel", 1) > 1
    file.Rows, file.Columns = values.shape[:2] if colour else values.shape[-2:]
    if values.ndim == 3 and not colour:
        file.NumberOfFrames = len(values)
    if colour:
        file.PlanarConfiguration = 0
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.PatientID, file.SamplesPerPixel, file.PhotometricInterpretation = "P1", 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 8 * values.itemsize
    file.HighBit, file.PixelRepresentation = file.BitsStored - 1, int(values.dtype.kind == "i")
    for name, value in tags.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    big = syntax == "ExplicitVRBigEndian"
    file.PixelData = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
    file["PixelData"].VR = "OW" if values.itemsize > 1 else "OB"
    if packed:
        meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        file.compress(uid.RLELossless)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, file, enforce_file_format=True)
    return stream.getvalue()
