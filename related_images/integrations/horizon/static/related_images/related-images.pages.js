/** The Django pages: the tab of a server, and the dialog that deletes images. */
(function () {
  'use strict';

  var SECONDS = 5;
  var SERVER_TAB = 'a[data-target="#instance_details__related_images"]';

  horizon.addInitFunction(function () {
    var confirm = horizon.datatables.confirm;
    horizon.datatables.confirm = function (action) {
      var modal = confirm(action);
      var ids = chosenImages($(action));
      if (modal && ids.length) {
        var url = WEBROOT + 'api/related-images/dependents/';
        $.getJSON(url, {image_ids: ids.join(',')}).done(function (answer) {
          if (answer.text) {
            $('<p role="alert"></p>').text(answer.text).appendTo(modal.find('.modal-body'));
          }
        });
      }
      return modal;
    };
  });

  /** Returns the IDs of the images that an action deletes. */
  function chosenImages($action) {
    var words = String($action.attr('value') || '').split('__');
    if (words[0] !== 'images' || words[1] !== 'delete') {
      return [];
    }
    if (words[2]) {
      return [words[2]];
    }
    return $action.closest('form').find('.table-row-multi-select:checked').map(function () {
      return this.value;
    }).get();
  }

  horizon.addInitFunction(function () {
    $(document).one('shown.bs.tab', SERVER_TAB, loadShown);
    loadShown();
  });

  /** Loads the tab of a server if it is shown. */
  function loadShown() {
    $('[data-related-images-server]:visible').each(function () { load($(this)); });
  }

  /** Loads the tab of a server, and again while an image in it is not complete. */
  function load($tab) {
    var path = 'api/related-images/servers/' + $tab.data('related-images-server') + '/images/';
    $.get(WEBROOT + path + window.location.search).done(function (content) {
      $tab.html(content);
      if ($tab.find('[data-unfinished]').length) {
        window.setTimeout(load, 1000 * SECONDS, $tab);
      }
    }).fail(function () {
      $tab.text(gettext('The images and backups cannot be loaded.'));
    });
  }
})();
