from inverters.pixelcnn.density import PixelCNN

__all__ = ["PixelCNN"]
