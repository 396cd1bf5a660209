"""An echo whose handler sleeps: for Daphne and Channels, and for lull's hooks behind gunicorn.

    DELAY=1 daphne --port 8001 echo:channels
    DELAY=1 gunicorn --workers 5 --bind unix:/run/echo.sock echo:wsgi
"""
import os, time

import django
from django.conf import settings

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of no use", MIDDLEWARE=[], INSTALLED_APPS=[])
django.setup()

from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

DELAY = float(os.environ.get("DELAY", "0"))
UNTIL = time.time() + float(os.environ.get("DELAY_FOR", "inf"))


def handle():
    if DELAY and time.time() < UNTIL:
        time.sleep(DELAY)


def hook(request):
    if request.headers.get("Lull-Event") != "message":
        return HttpResponse()
    handle()
    return HttpResponse(request.body, content_type=request.headers["Content-Type"])


class Echo(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        handle()
        self.send(text_data=text_data, bytes_data=bytes_data)


urlpatterns = [path("", hook)]
wsgi = get_wsgi_application()
channels = ProtocolTypeRouter({"websocket": Echo.as_asgi()})
