from gcnet.errors import WeightsError as WeightsError
from gcnet.models.catalogue import list_models as list_models
from gcnet.models.create import create_model as create_model
from gcnet.models.detection import create_detector as create_detector
