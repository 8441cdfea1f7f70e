from gcnet.models.catalogue import DETECTORS as DETECTORS
from gcnet.models.catalogue import is_detector as is_detector
from gcnet.models.detection.create import create_detector as create_detector
