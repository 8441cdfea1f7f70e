from gcnet.models.detection.create import create_detector as create_detector
from gcnet.models.detection.names import DETECTORS as DETECTORS
from gcnet.models.detection.names import is_detector as is_detector
